// Writes to a cluster over several connections and measures the latency of each write.
//
//	client SYSTEM CONNECTIONS ADDRESS,… OUTSTANDING SIZE SECONDS
//
// SYSTEM is zookeeper or etcd. Each of OUTSTANDING writers sets its own key, one write after another. The writers share up to
// CONNECTIONS connections, spread over the addresses. Prints one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A writer sets a key and returns once the write is durable on a majority.
type writer func(key string, value []byte) error

func main() {
	if len(os.Args) != 7 {
		log.Fatal("usage: client SYSTEM CONNECTIONS ADDRESSES OUTSTANDING SIZE SECONDS")
	}
	connections, addresses := number(os.Args[2]), strings.Split(os.Args[3], ",")
	outstanding, size, seconds := number(os.Args[4]), number(os.Args[5]), number(os.Args[6])
	connect := map[string]func(address string) (writer, error){
		"zookeeper": zookeeper, "etcd": etcd,
	}[os.Args[1]]
	if connect == nil {
		log.Fatalf("unknown system: %s", os.Args[1])
	}
	var writers []writer
	for i := 0; i < min(outstanding, connections); i++ {
		one, err := connect(addresses[i%len(addresses)])
		if err != nil {
			log.Fatal(err)
		}
		writers = append(writers, one)
	}
	value := []byte(strings.Repeat("x", size))
	// The first write creates the key.
	run(writers, outstanding, value, time.Now().Add(500*time.Millisecond))
	begun := time.Now()
	times := run(writers, outstanding, value, begun.Add(time.Duration(seconds)*time.Second))
	took := time.Since(begun).Seconds()
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	at := func(permille int) float64 { return float64(times[(len(times)-1)*permille/1000].Microseconds()) / 1000 }
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"writes": len(times), "per_s": float64(len(times)) / took, "p50": at(500), "p99": at(990), "p999": at(999),
	})
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func run(writers []writer, outstanding int, value []byte, until time.Time) []time.Duration {
	var mutex sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	for i := 0; i < outstanding; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			write, key := writers[i%len(writers)], fmt.Sprintf("key-%d", i)
			var times []time.Duration
			for time.Now().Before(until) {
				begun := time.Now()
				if err := write(key, value); err != nil {
					log.Fatal(err)
				}
				times = append(times, time.Since(begun))
			}
			mutex.Lock()
			all = append(all, times...)
			mutex.Unlock()
		}()
	}
	group.Wait()
	return all
}

type silent struct{}

func (silent) Printf(string, ...any) {}

func zookeeper(address string) (writer, error) {
	connection, _, err := zk.Connect([]string{address}, 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return nil, err
	}
	return func(key string, value []byte) error {
		_, err := connection.Set("/"+key, value, -1)
		if err == zk.ErrNoNode {
			_, err = connection.Create("/"+key, value, 0, zk.WorldACL(zk.PermAll))
		}
		return err
	}, nil
}

func etcd(address string) (writer, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	return func(key string, value []byte) error {
		_, err := client.Put(context.Background(), key, string(value))
		return err
	}, nil
}
