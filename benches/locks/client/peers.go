package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

type silent struct{}

func (silent) Printf(string, ...any) {}

// The recipe of ZooKeeper's documentation: ephemeral sequential nodes.
func zookeeper(address, lock string) (contender, error) {
	connection, events, err := zk.Connect([]string{address}, 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return contender{}, err
	}
	// Before it has a session, requests fail if the first attempt to connect does.
	for event := range events {
		if event.State == zk.StateHasSession {
			break
		}
	}
	return contender{func(granted func()) error {
		one := zk.NewLock(connection, "/"+lock, zk.WorldACL(zk.PermAll))
		if err := one.Lock(); err != nil {
			return err
		}
		granted()
		return one.Unlock()
	}, connection.Close}, nil
}

// The mutex of etcd's own client.
func etcd(address, lock string) (contender, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 10 * time.Second})
	if err != nil {
		return contender{}, err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return contender{}, err
	}
	return contender{func(granted func()) error {
		one := concurrency.NewMutex(session, "/"+lock)
		if err := one.Lock(context.Background()); err != nil {
			return err
		}
		granted()
		return one.Unlock(context.Background())
	}, func() { client.Close() }}, nil
}

// The pattern of the documentation of SET: a random value, and a script that deletes the key if it still has that value. A lock that is
// held is tried again after a millisecond.
func redis(address, lock string) (contender, error) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return contender{}, err
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
	return contender{func(granted func()) error {
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
		granted()
		_, err := command("EVAL", release, "1", lock, value)
		return err
	}, func() { connection.Close() }}, nil
}
