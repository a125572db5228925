// Consul 1.14, of which only `consul agent FLAGS` is needed: the last release under the MPL all of whose modules have published checksums.
package main

import (
	"io"
	"log"
	"os"

	"github.com/hashicorp/consul/command/agent"
	"github.com/hashicorp/consul/command/cli"
	ui "github.com/mitchellh/cli"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "agent" {
		log.Fatal("usage: consul agent FLAGS")
	}
	// The agent has a log of its own.
	log.SetOutput(io.Discard)
	terminal := &cli.BasicUI{BasicUi: ui.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	os.Exit(agent.New(terminal).Run(os.Args[2:]))
}
