"""Apicurio Registry, from Maven Central: a schema registry with Confluent's API."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

from service import CACHE, Service, free_port, install, spawn, wait

# The last version for Java 17.
VERSION = "3.0.9"
JAVA = ["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def program():
    """The server's archive; downloads it if necessary."""
    folder = CACHE / "apicurio" / VERSION
    archive = folder / f"apicurio-registry-app-{VERSION}-runner.jar"
    if (folder / "complete").exists():
        return archive
    install("java", "openjdk-17-jre-headless")
    install("mvn", "maven")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
    copy = ["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={name}", f"-DoutputDirectory={folder}"]
    if subprocess.run(copy).returncode != 0:
        sys.exit("Apicurio Registry cannot be downloaded from Maven Central")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archived:
        archived.extractall(folder)
    next(folder.glob("*.tar.gz")).unlink()
    (folder / "complete").touch()
    return archive


class Apicurio(Service):
    def __init__(self):
        super().__init__("apicurio")

    def install(self):
        program()

    def up(self):
        if saved := self.running():
            return saved
        self.down()
        archive = program()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="crossdock-apicurio-"))
        port, management = free_port(), free_port()
        settings = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}", "-Dquarkus.management.host=127.0.0.1",
                    f"-Dquarkus.management.port={management}"]
        log = folder / "output.log"
        process = spawn(["java", *JAVA, *settings, "-jar", archive], dict(os.environ, HOME=str(folder)), log)
        url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        self.save([process.pid], folder, {"PORTS": port})
        wait(lambda: answers(f"{url}/subjects"), process, log, "Apicurio Registry")
        return self.save([process.pid], folder, {"REGISTRY_URL": url, "PORTS": port})

    def crash(self):
        """It keeps its data in memory."""
        sys.exit("Apicurio Registry cannot be restarted with its data")


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False
