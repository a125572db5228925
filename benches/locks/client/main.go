// Acquires and releases locks, and measures how long each takes.
//
//	client SYSTEM ADDRESS,… WORKERS LOCKS SECONDS
//
// SYSTEM is crossdock, zookeeper, etcd or redis. The workers share LOCKS locks evenly, and each has a connection of its own, spread
// over the addresses. A worker acquires its lock, releases it, and begins again. Prints one line of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// A locker acquires a lock and releases it.
type locker func() error

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: client SYSTEM ADDRESSES WORKERS LOCKS SECONDS")
	}
	addresses := strings.Split(os.Args[2], ",")
	workers, locks, seconds := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	connect := map[string]func(address, lock string) (locker, error){
		"crossdock": crossdock, "zookeeper": zookeeper, "etcd": etcd, "redis": redis,
	}[os.Args[1]]
	if connect == nil {
		log.Fatalf("unknown system: %s", os.Args[1])
	}
	var lockers []locker
	for i := 0; i < workers; i++ {
		one, err := connect(addresses[i%len(addresses)], fmt.Sprintf("bench-%d", i%locks))
		if err != nil {
			log.Fatal(err)
		}
		lockers = append(lockers, one)
	}
	run(lockers, time.Now().Add(time.Second))
	begun := time.Now()
	times := run(lockers, begun.Add(time.Duration(seconds)*time.Second))
	took := time.Since(begun).Seconds()
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	at := func(permille int) float64 { return float64(times[(len(times)-1)*permille/1000].Microseconds()) / 1000 }
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"writes": len(times), "per_s": float64(len(times)) / took, "p50": at(500), "p99": at(990),
	})
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func run(lockers []locker, until time.Time) []time.Duration {
	var mutex sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	for _, lock := range lockers {
		group.Add(1)
		go func() {
			defer group.Done()
			var times []time.Duration
			for time.Now().Before(until) {
				begun := time.Now()
				if err := lock(); err != nil {
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

// A route that answers while it holds the lock.
func crossdock(address, lock string) (locker, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	body := fmt.Sprintf("{\"name\":%q}", lock)
	return func() error {
		response, err := client.Post("http://"+address+"/lock", "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusNoContent {
			err = fmt.Errorf("%s: %s", response.Status, text)
		}
		return err
	}, nil
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// The recipe of ZooKeeper's documentation: ephemeral sequential nodes.
func zookeeper(address, lock string) (locker, error) {
	connection, _, err := zk.Connect([]string{address}, 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return nil, err
	}
	return func() error {
		one := zk.NewLock(connection, "/"+lock, zk.WorldACL(zk.PermAll))
		if err := one.Lock(); err != nil {
			return err
		}
		return one.Unlock()
	}, nil
}

// The mutex of etcd's own client.
func etcd(address, lock string) (locker, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return nil, err
	}
	return func() error {
		one := concurrency.NewMutex(session, "/"+lock)
		if err := one.Lock(context.Background()); err != nil {
			return err
		}
		return one.Unlock(context.Background())
	}, nil
}

// The pattern of the documentation of SET: a random value, and a script that deletes the key if it still has that value. A lock that is
// held is tried again after a millisecond.
func redis(address, lock string) (locker, error) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	replies := bufio.NewReader(connection)
	command := func(words ...string) (string, error) {
		var request strings.Builder
		fmt.Fprintf(&request, "*%d\r\n", len(words))
		for _, word := range words {
			fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := io.WriteString(connection, request.String()); err != nil {
			return "", err
		}
		line, err := replies.ReadString('\n')
		if err == nil && strings.HasPrefix(line, "-") {
			err = fmt.Errorf("redis: %s", line)
		}
		return strings.TrimSpace(line), err
	}
	const release = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
	return func() error {
		value := strconv.FormatUint(rand.Uint64(), 36)
		for {
			reply, err := command("SET", lock, value, "NX", "PX", "10000")
			if err != nil {
				return err
			}
			if reply == "+OK" {
				break
			}
			time.Sleep(time.Millisecond)
		}
		_, err := command("EVAL", release, "1", lock, value)
		return err
	}, nil
}
