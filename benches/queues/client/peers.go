package main

import (
	"context"
	"fmt"
	"log"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	client "github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

// Connections to ZooKeeper and etcd, spread over the servers.
const connections = 16

type silent struct{}

func (silent) Printf(string, ...any) {}

// The queue of ZooKeeper's recipes for each key: sequential nodes, which a consumer reads and deletes in their order.
func zookeeper(addresses []string, name string, keys int) (queue, error) {
	var all []*zk.Conn
	for i := range connections {
		connection, _, err := zk.Connect([]string{addresses[i%len(addresses)]}, 10*time.Second, zk.WithLogger(silent{}))
		if err != nil {
			return queue{}, err
		}
		all = append(all, connection)
	}
	acl := zk.WorldACL(zk.PermAll)
	if _, err := all[0].Create("/"+name, nil, 0, acl); err != nil {
		return queue{}, err
	}
	folder := func(key int) string { return fmt.Sprintf("/%s/%d", name, key) }
	for key := range keys {
		if _, err := all[0].Create(folder(key), nil, 0, acl); err != nil {
			return queue{}, err
		}
	}
	enqueue := func(key int, body []byte) error {
		_, err := all[key%connections].Create(folder(key)+"/", body, zk.FlagSequence, acl)
		return err
	}
	consumeKey := func(connection *zk.Conn, key int, deliver func(key int, body []byte)) error {
		// A server may be behind the one that created it.
		if _, err := connection.Sync(folder(key)); err != nil {
			return err
		}
		for {
			nodes, _, changed, err := connection.ChildrenW(folder(key))
			if err != nil {
				return err
			}
			if len(nodes) == 0 {
				<-changed
				continue
			}
			sort.Strings(nodes)
			for _, node := range nodes {
				path := folder(key) + "/" + node
				body, _, err := connection.Get(path)
				if err != nil {
					return err
				}
				deliver(key, body)
				if err := connection.Delete(path, -1); err != nil {
					return err
				}
			}
		}
	}
	consume := func(deliver func(key int, body []byte)) error {
		for key := range keys {
			go func() { log.Fatal(consumeKey(all[(key+1)%connections], key, deliver)) }()
		}
		return nil
	}
	return queue{enqueue, consume}, nil
}

// The queue of the recipes of etcd's own client, one for each key.
func etcd(addresses []string, name string, keys int) (queue, error) {
	var all []*clientv3.Client
	for i := range connections {
		one, err := clientv3.New(clientv3.Config{Endpoints: []string{addresses[i%len(addresses)]}, DialTimeout: 10 * time.Second})
		if err != nil {
			return queue{}, err
		}
		all = append(all, one)
	}
	prefix := func(key int) string { return fmt.Sprintf("%s/%d/", name, key) }
	var producers []*recipe.Queue
	for key := range keys {
		producers = append(producers, recipe.NewQueue(all[key%connections], prefix(key)))
	}
	enqueue := func(key int, body []byte) error { return producers[key].Enqueue(string(body)) }
	consume := func(deliver func(key int, body []byte)) error {
		for key := range keys {
			from := recipe.NewQueue(all[(key+1)%connections], prefix(key))
			go func() {
				for {
					body, err := from.Dequeue()
					if err != nil {
						log.Fatal(err)
					}
					deliver(key, []byte(body))
				}
			}()
		}
		return nil
	}
	return queue{enqueue, consume}, nil
}

// A stream for each key, with a consumer group. Three consumers read their share of the streams in batches, and acknowledge and delete each batch.
func redis(addresses []string, name string, keys int) (queue, error) {
	const consumers, batch = 3, 16
	adding := client.NewClient(&client.Options{Addr: addresses[0], PoolSize: min(keys, 64), PoolTimeout: 30 * time.Second})
	every := context.Background()
	stream := func(key int) string { return fmt.Sprintf("%s/%d", name, key) }
	for key := range keys {
		if err := adding.XGroupCreateMkStream(every, stream(key), "bench", "0").Err(); err != nil {
			return queue{}, err
		}
	}
	enqueue := func(key int, body []byte) error {
		return adding.XAdd(every, &client.XAddArgs{Stream: stream(key), Values: []any{"body", body}}).Err()
	}
	consumeShare := func(share int, deliver func(key int, body []byte)) error {
		own := client.NewClient(&client.Options{Addr: addresses[0], PoolSize: 1})
		var streams []string
		for key := share; key < keys; key += consumers {
			streams = append(streams, stream(key))
		}
		if streams == nil {
			return nil
		}
		for range len(streams) {
			streams = append(streams, ">")
		}
		for {
			read, err := own.XReadGroup(every, &client.XReadGroupArgs{Group: "bench", Consumer: strconv.Itoa(share), Streams: streams, Count: batch, Block: time.Second}).Result()
			if err == client.Nil {
				continue
			}
			if err != nil {
				return err
			}
			settle := own.Pipeline()
			for _, part := range read {
				key, err := strconv.Atoi(part.Stream[strings.LastIndexByte(part.Stream, '/')+1:])
				if err != nil {
					return err
				}
				var ids []string
				for _, message := range part.Messages {
					deliver(key, []byte(message.Values["body"].(string)))
					ids = append(ids, message.ID)
				}
				settle.XAck(every, part.Stream, "bench", ids...)
				settle.XDel(every, part.Stream, ids...)
			}
			if _, err := settle.Exec(every); err != nil {
				return err
			}
		}
	}
	consume := func(deliver func(key int, body []byte)) error {
		for share := range consumers {
			go func() {
				if err := consumeShare(share, deliver); err != nil {
					log.Fatal(err)
				}
			}()
		}
		return nil
	}
	return queue{enqueue, consume}, nil
}
