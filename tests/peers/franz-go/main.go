// Moves records as a member of a consumer group, with franz-go, which shares no code with librdkafka.
//
//	franz move BROKERS GROUP FROM TO    consumes, writes, and commits each offset once its record is stored, until SIGTERM
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if len(os.Args) != 6 || os.Args[1] != "move" {
		fmt.Fprintln(os.Stderr, "usage: franz move BROKERS GROUP FROM TO")
		os.Exit(2)
	}
	if err := move(os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func move(brokers, group, from, to string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		// Partitions move only between polls, when everything that was polled is stored and committed.
		kgo.BlockRebalanceOnPoll(),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			if len(assigned[from]) > 0 {
				fmt.Printf("assigned %d partitions\n", len(assigned[from]))
			}
		}),
	)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for {
		fetched := client.PollRecords(ctx, 100)
		if ctx.Err() != nil {
			return nil
		}
		if errs := fetched.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		records := fetched.Records()
		moved := make([]*kgo.Record, len(records))
		for i, record := range records {
			moved[i] = &kgo.Record{Topic: to, Key: record.Key, Value: record.Value}
		}
		if err := client.ProduceSync(context.Background(), moved...).FirstErr(); err != nil {
			return err
		}
		if err := client.CommitRecords(context.Background(), records...); err != nil {
			return err
		}
		client.AllowRebalance()
	}
}
