// Acquires and releases locks, and measures how long each takes.
//
//	client SYSTEM ADDRESS,… WORKERS LOCKS SECONDS
//
// SYSTEM is crossdock, route, bare, zookeeper, etcd or redis. The workers share LOCKS locks evenly, and each has a connection of its own,
// spread over the addresses. A worker acquires its lock, releases it as soon as it knows that it holds it, and begins again. Prints one
// line of JSON: pairs, how many per second, how long a pair takes, and the time from one grant of a lock to the next.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A contender wants a lock.
type contender struct {
	// Acquires it, calls granted once it knows that it holds it, and releases it.
	lock  func(granted func()) error
	close func()
}

// What was seen of a lock: the time from each grant to the next.
type observed struct {
	mutex     sync.Mutex
	last      time.Time
	handovers []time.Duration
}

func (o *observed) granted() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	now := time.Now()
	if !o.last.IsZero() {
		o.handovers = append(o.handovers, now.Sub(o.last))
	}
	o.last = now
}

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: client SYSTEM ADDRESSES WORKERS LOCKS SECONDS")
	}
	addresses := strings.Split(os.Args[2], ",")
	workers, locks, seconds := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	connect := map[string]func(address, lock string) (contender, error){
		"crossdock": crossdock, "route": route("/lock"), "bare": route("/bare"), "zookeeper": zookeeper, "etcd": etcd, "redis": redis,
	}[os.Args[1]]
	if connect == nil {
		log.Fatalf("unknown system: %s", os.Args[1])
	}
	var contenders []contender
	for i := 0; i < workers; i++ {
		one, err := connect(addresses[i%len(addresses)], fmt.Sprintf("bench-%d", i%locks))
		if err != nil {
			log.Fatal(err)
		}
		contenders = append(contenders, one)
	}
	run(contenders, locks, time.Now().Add(time.Second))
	begun := time.Now()
	times, handovers := run(contenders, locks, begun.Add(time.Duration(seconds)*time.Second))
	took := time.Since(begun).Seconds()
	for _, one := range contenders {
		one.close()
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"writes": len(times), "per_s": float64(len(times)) / took, "p50": quantile(times, 500), "p99": quantile(times, 990),
		"handover_p50": quantile(handovers, 500), "handover_p99": quantile(handovers, 990),
	})
}

// A quantile in milliseconds.
func quantile(times []time.Duration, permille int) float64 {
	if len(times) == 0 {
		return 0
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	return float64(times[(len(times)-1)*permille/1000].Microseconds()) / 1000
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// Returns how long each pair took, and each time from one grant of a lock to the next.
func run(contenders []contender, locks int, until time.Time) (times, handovers []time.Duration) {
	var mutex sync.Mutex
	var group sync.WaitGroup
	seen := make([]observed, locks)
	for i, one := range contenders {
		group.Add(1)
		go func() {
			defer group.Done()
			var own []time.Duration
			for time.Now().Before(until) {
				begun := time.Now()
				if err := one.lock(seen[i%locks].granted); err != nil {
					log.Fatal(err)
				}
				own = append(own, time.Since(begun))
			}
			mutex.Lock()
			times = append(times, own...)
			mutex.Unlock()
		}()
	}
	group.Wait()
	for i := range seen {
		handovers = append(handovers, seen[i].handovers...)
	}
	return times, handovers
}
