package cli

import (
	"context"
	"os"

	"github.com/repromill/repromill/planner/fetch/git"
	"github.com/repromill/repromill/runner/docker"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/server"
)

// The entry points that the program uses on itself.
const (
	workerEntry  = "__worker"
	sandboxEntry = "__sandbox-init"
	gitEntry     = "__git-unpack"
	// The first process of a container, and the proxy beside it.
	containerEntry = "__container-init"
	proxyEntry     = "__container-proxy"
	probeEntry     = "__probe"
	// The process beside a model server.
	serverEntry = "__server"
	podEntry    = "worker" // in pods, where people see it
)

// hidden dispatches them. They come before everything else because they run
// inside a sandbox, where neither a configuration nor a home folder can be
// read.
func hidden(args []string) (code int, ok bool) {
	if len(args) < 2 {
		return 0, false
	}
	switch args[1] {
	case simEntry:
		return simMain(args[2:]), true
	case workerEntry:
		return local.WorkerMain(args[2:]), true
	case serverEntry:
		return server.SuperviseMain(args[2:]), true
	case sandboxEntry:
		return sandbox.InitMain(args[2:]), true
	case containerEntry:
		return supervisor.Main(), true
	case proxyEntry:
		return docker.ProxyMain(args[2:]), true
	case podEntry:
		exe, err := os.Executable()
		if err != nil {
			exe = args[0]
		}
		return podMain(args[2:], exe), true
	case probeEntry:
		return pod.ProbeMain(args[2:]), true
	case gitEntry:
		return git.ChildMain(context.Background(), os.Stdin, os.Stdout), true
	}
	return 0, false
}
