"""RabbitMQ, of Debian's package."""

import os
import pathlib
import signal
import sys
import tempfile
import time

from service import Service, free_port, install, is_listening, is_zombie, spawn, start_time, wait


class RabbitMq(Service):
    def __init__(self):
        super().__init__("rabbitmq")

    def install(self):
        install("rabbitmq-server", "rabbitmq-server")

    def up(self):
        if saved := self.running():
            return saved
        self.down()
        self.install()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="crossdock-rabbitmq-"))
        ports = {"amqp": free_port(), "distribution": free_port(), "names": free_port()}
        (folder / "plugins").write_text("[].\n")
        # A low limit, so that a nearly full disk does not block publishers.
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{ports['amqp']}\n"
                                              "disk_free_limit.absolute = 50MB\nloopback_users.guest = true\n")
        if certificates := os.environ.get("CROSSDOCK_RABBITMQ_TLS"):
            ports["amqps"] = free_port()
            with open(folder / "rabbitmq.conf", "a") as settings:
                settings.write(f"listeners.ssl.1 = 127.0.0.1:{ports['amqps']}\n"
                               f"ssl_options.cacertfile = {certificates}/ca.pem\n"
                               f"ssl_options.certfile = {certificates}/server.pem\n"
                               f"ssl_options.keyfile = {certificates}/server.key\n"
                               "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n")
        # Erlang's port mapper is started here; otherwise the server would start one that outlives it.
        names = ["epmd", "-address", "127.0.0.1", "-port", str(ports["names"])]
        log = folder / "output.log"
        epmd = spawn(names, self.environment(folder, ports), log)
        wait(lambda: is_listening(ports["names"]), epmd, log, "epmd")
        return self.start(folder, ports, epmd.pid)

    def crash(self):
        """Kills the server and restarts it with its data."""
        saved = self.running()
        if saved is None:
            sys.exit("RabbitMQ is not running")
        (server, _), *_, (epmd, _) = saved["processes"]
        os.kill(server, signal.SIGKILL)
        while start_time(server) is not None and not is_zombie(server):
            time.sleep(0.02)
        time.sleep(float(os.environ.get("CROSSDOCK_DOWN_SECONDS", "0")))
        return self.start(pathlib.Path(saved["folder"]), saved["variables"]["PORTS"], epmd)

    def start(self, folder, ports, epmd):
        log = folder / "output.log"
        (folder / "pid").unlink(missing_ok=True)
        server = spawn(["/usr/lib/rabbitmq/bin/rabbitmq-server"], self.environment(folder, ports), log)
        self.save([server.pid, epmd], folder, {"PORTS": ports})
        wait(lambda: is_listening(ports["amqp"]) and (folder / "pid").exists(), server, log, "RabbitMQ")
        # The script execs or spawns the server, which writes its process id to a file.
        pid = int((folder / "pid").read_text())
        variables = {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{ports['amqp']}/%2f", "RABBITMQ_PID": pid, "PORTS": ports,
                     "RABBITMQ_CTL": f"env HOME={folder} ERL_EPMD_PORT={ports['names']} RABBITMQ_NODENAME=crossdock@localhost "
                                     "/usr/lib/rabbitmq/bin/rabbitmqctl"}
        if "amqps" in ports:
            variables["RABBITMQ_TLS_URL"] = f"amqps://guest:guest@localhost:{ports['amqps']}/%2f"
        return self.save(list(dict.fromkeys([pid, server.pid, epmd])), folder, variables)

    def environment(self, folder, ports):
        return dict(
            os.environ, HOME=str(folder), RABBITMQ_HOME="/usr/lib/rabbitmq", RABBITMQ_NODENAME="crossdock@localhost",
            RABBITMQ_NODE_PORT=str(ports["amqp"]), RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_DIST_PORT=str(ports["distribution"]), RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
            RABBITMQ_MNESIA_BASE=str(folder / "data"), RABBITMQ_LOG_BASE=str(folder / "log"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"), RABBITMQ_PID_FILE=str(folder / "pid"), RABBITMQ_LOGS="-",
            ERL_EPMD_PORT=str(ports["names"]), ERL_EPMD_ADDRESS="127.0.0.1", RABBITMQ_USE_LONGNAME="false",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
        )
