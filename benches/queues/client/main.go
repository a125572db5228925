// Adds messages to queues and consumes them, in order for each key, and measures how many are delivered and how long that takes.
//
//	client SYSTEM ADDRESS,… KEYS BYTES SECONDS
//
// SYSTEM is crossdock, zookeeper, etcd or redis. Each key has a producer that adds its next message once the one before is durable, and no
// more than 16 that are not delivered yet. Every message must be delivered once, in the order of its key. Prints one line of JSON.
package main

import (
	"encoding/binary"
	"encoding/json"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The most messages of a key that are added and not delivered.
const windowSize = 16

// A queue of one system.
type queue struct {
	// Adds a message; returns once it is durable.
	enqueue func(key int, body []byte) error
	// Starts to consume: calls deliver for each message, for one of a key at a time, and settles the message after that.
	consume func(deliver func(key int, body []byte)) error
}

type measured struct {
	begun     time.Time
	added     atomic.Int64
	delivered atomic.Int64
	mutex     sync.Mutex
	// From the call that adds a message to its delivery.
	times []time.Duration
	// By key: how many messages were delivered, and room for further ones.
	next    []uint64
	windows []chan struct{}
}

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: client SYSTEM ADDRESSES KEYS BYTES SECONDS")
	}
	addresses := strings.Split(os.Args[2], ",")
	keys, size, seconds := number(os.Args[3]), max(number(os.Args[4]), 16), number(os.Args[5])
	connect := map[string]func(addresses []string, name string, keys int) (queue, error){
		"crossdock": crossdock, "zookeeper": zookeeper, "etcd": etcd, "redis": redis,
	}[os.Args[1]]
	if connect == nil {
		log.Fatalf("unknown system: %s", os.Args[1])
	}
	one, err := connect(addresses, "bench-"+strconv.FormatInt(time.Now().UnixNano(), 36), keys)
	if err != nil {
		log.Fatal(err)
	}
	m := &measured{begun: time.Now(), next: make([]uint64, keys)}
	for range keys {
		m.windows = append(m.windows, make(chan struct{}, windowSize))
	}
	if err := one.consume(m.deliver); err != nil {
		log.Fatal(err)
	}
	var stopped atomic.Bool
	var producers sync.WaitGroup
	for key := range keys {
		producers.Go(func() { m.produce(one, key, size, &stopped) })
	}
	for deadline := time.Now().Add(20 * time.Second); m.delivered.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			log.Fatal("no message was delivered in time")
		}
	}
	time.Sleep(time.Second)
	m.mutex.Lock()
	m.times = nil
	m.mutex.Unlock()
	begun, before := time.Now(), m.delivered.Load()
	time.Sleep(time.Duration(seconds) * time.Second)
	count, took := m.delivered.Load()-before, time.Since(begun).Seconds()
	m.mutex.Lock()
	times := append([]time.Duration(nil), m.times...)
	m.mutex.Unlock()
	stopped.Store(true)
	producers.Wait()
	for deadline := time.Now().Add(60 * time.Second); m.delivered.Load() < m.added.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			log.Fatalf("%d of %d messages were delivered", m.delivered.Load(), m.added.Load())
		}
	}
	// The last ones are settled.
	time.Sleep(200 * time.Millisecond)
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	at := func(permille int) float64 { return float64(times[(len(times)-1)*permille/1000].Microseconds()) / 1000 }
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"writes": m.delivered.Load(), "per_s": float64(count) / took, "p50": at(500), "p99": at(990),
	})
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func (m *measured) produce(to queue, key, size int, stopped *atomic.Bool) {
	for position := uint64(0); !stopped.Load(); position++ {
		m.windows[key] <- struct{}{}
		body := make([]byte, size)
		binary.BigEndian.PutUint64(body, uint64(time.Since(m.begun)))
		binary.BigEndian.PutUint64(body[8:], position)
		m.added.Add(1)
		if err := to.enqueue(key, body); err != nil {
			log.Fatal(err)
		}
	}
}

func (m *measured) deliver(key int, body []byte) {
	took := time.Since(m.begun) - time.Duration(binary.BigEndian.Uint64(body))
	if position := binary.BigEndian.Uint64(body[8:]); position != m.next[key] {
		log.Fatalf("message %d of key %d was delivered instead of %d", position, key, m.next[key])
	}
	m.next[key]++
	m.mutex.Lock()
	m.times = append(m.times, took)
	m.mutex.Unlock()
	m.delivered.Add(1)
	<-m.windows[key]
}
