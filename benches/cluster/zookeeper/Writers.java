import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;

/**
 * Writes to ZooKeeper with the official client, as ../client does with a Go client: {@code Writers CONNECTIONS ADDRESS,… OUTSTANDING SIZE SECONDS}.
 * Each of OUTSTANDING writers sets its own node asynchronously, one write after another. Prints the same line of JSON.
 */
final class Writers {
    private static final AtomicReference<KeeperException> PROBLEM = new AtomicReference<>();

    /** One writer. Its callbacks run on the event thread of its connection. */
    private static final class Writer {
        final ZooKeeper connection;
        final String node;
        final byte[] value;
        long[] times = new long[1024];
        int count;

        Writer(ZooKeeper connection, String node, byte[] value) {
            this.connection = connection;
            this.node = node;
            this.value = value;
        }

        void write(long until, CountDownLatch done) {
            long begun = System.nanoTime();
            if (begun >= until) {
                done.countDown();
                return;
            }
            connection.setData(node, value, -1, (code, path, context, stat) -> {
                if (code != KeeperException.Code.OK.intValue()) {
                    PROBLEM.set(KeeperException.create(KeeperException.Code.get(code), path));
                    done.countDown();
                    return;
                }
                if (count == times.length) {
                    times = Arrays.copyOf(times, 2 * count);
                }
                times[count++] = System.nanoTime() - begun;
                write(until, done);
            }, null);
        }
    }

    public static void main(String[] arguments) throws Exception {
        int connectionsMax = Integer.parseInt(arguments[0]);
        String[] addresses = arguments[1].split(",");
        int outstanding = Integer.parseInt(arguments[2]);
        byte[] value = "x".repeat(Integer.parseInt(arguments[3])).getBytes();
        long seconds = Long.parseLong(arguments[4]);
        List<ZooKeeper> connections = new ArrayList<>();
        for (int i = 0; i < Math.min(outstanding, connectionsMax); i++) {
            CountDownLatch connected = new CountDownLatch(1);
            connections.add(new ZooKeeper(addresses[i % addresses.length], 10_000, event -> {
                if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                    connected.countDown();
                }
            }));
            connected.await();
        }
        List<Writer> writers = new ArrayList<>();
        for (int i = 0; i < outstanding; i++) {
            ZooKeeper connection = connections.get(i % connections.size());
            try {
                connection.create("/key-" + i, value, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            } catch (KeeperException.NodeExistsException exists) {
                // Created by an earlier run.
            }
            writers.add(new Writer(connection, "/key-" + i, value));
        }
        // Warm up the JIT compiler.
        run(writers, 2_000_000_000L);
        long begun = System.nanoTime();
        run(writers, seconds * 1_000_000_000L);
        double took = (System.nanoTime() - begun) / 1e9;
        long[] times = writers.stream().flatMapToLong(writer -> Arrays.stream(writer.times, 0, writer.count)).sorted().toArray();
        System.out.printf("{\"writes\": %d, \"per_s\": %.1f, \"p50\": %.3f, \"p99\": %.3f, \"p999\": %.3f}%n",
            times.length, times.length / took, at(times, 500), at(times, 990), at(times, 999));
        for (ZooKeeper connection : connections) {
            connection.close();
        }
    }

    private static void run(List<Writer> writers, long nanos) throws Exception {
        CountDownLatch done = new CountDownLatch(writers.size());
        long until = System.nanoTime() + nanos;
        for (Writer writer : writers) {
            writer.count = 0;
            writer.write(until, done);
        }
        done.await();
        if (PROBLEM.get() != null) {
            throw PROBLEM.get();
        }
    }

    private static double at(long[] times, int permille) {
        return times[(int) ((times.length - 1L) * permille / 1000)] / 1e6;
    }
}
