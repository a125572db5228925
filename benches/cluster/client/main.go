// Writes to a cluster from several connections at once, and tells how long each write took.
//
//	client SYSTEM ADDRESS,… OUTSTANDING SIZE SECONDS
//
// SYSTEM is zookeeper, etcd or crossdock. Each of OUTSTANDING writers sets a key of its own, one write after another;
// they share up to sixteen connections, spread over the addresses. Prints one line of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const connectionsMax = 16

// A writer sets a key to a value and returns once that is durable on a majority.
type writer func(key string, value []byte) error

func main() {
	if len(os.Args) != 6 {
		log.Fatal("SYSTEM ADDRESSES OUTSTANDING SIZE SECONDS")
	}
	addresses := strings.Split(os.Args[2], ",")
	outstanding, size, seconds := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	connect := map[string]func(address string) (writer, error){
		"zookeeper": zookeeper, "etcd": etcd, "crossdock": crossdock,
	}[os.Args[1]]
	if connect == nil {
		log.Fatalf("%s is not known", os.Args[1])
	}
	var writers []writer
	for i := 0; i < min(outstanding, connectionsMax); i++ {
		one, err := connect(addresses[i%len(addresses)])
		if err != nil {
			log.Fatal(err)
		}
		writers = append(writers, one)
	}
	value := []byte(strings.Repeat("x", size))
	// The first write of a key makes it.
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

// Lines of `register-node`: a number, and what is asked; the answers come in any order.
func crossdock(address string) (writer, error) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	var mutex sync.Mutex
	waiting := map[string]chan string{}
	next := 0
	lines := make(chan string, 4096)
	go func() {
		out := bufio.NewWriter(connection)
		for line := range lines {
			out.WriteString(line)
			for more := true; more; {
				select {
				case line := <-lines:
					out.WriteString(line)
				default:
					more = false
				}
			}
			if out.Flush() != nil {
				return
			}
		}
	}()
	go func() {
		in := bufio.NewReader(connection)
		for {
			line, err := in.ReadString('\n')
			if err == io.EOF {
				return
			}
			if err != nil {
				log.Fatal(err)
			}
			number, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
			mutex.Lock()
			done := waiting[number]
			delete(waiting, number)
			mutex.Unlock()
			done <- answer
		}
	}()
	return func(key string, value []byte) error {
		done := make(chan string, 1)
		mutex.Lock()
		number := strconv.Itoa(next)
		next++
		waiting[number] = done
		mutex.Unlock()
		lines <- number + " set " + key + " " + string(value) + "\n"
		if answer := <-done; answer != "done" {
			return fmt.Errorf("crossdock: %s", answer)
		}
		return nil
	}, nil
}
