package pod

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/local"
)

// probeStage keeps the key of the probe apart from the attempt's own.
const probeStage = "probe"

// probe makes sure that the way out is closed before untrusted code runs: a
// program of ours tries it from inside of the sandbox. Policies of the cluster
// may close it too, but nobody can see from here that one is in force.
func (w *worker) probe(ctx context.Context, e *local.Executor) (refused runner.Status, err error) {
	a := w.rec.Attempt
	if a.NoSandbox {
		return runner.Status{}, nil
	}
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return runner.Status{}, fmt.Errorf("probe the network: %w", err)
	}
	defer l.Close()
	var reached atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	try := []string{fmt.Sprintf("127.0.0.1:%d", port), "169.254.169.254:80"}
	for _, ip := range ownAddresses() {
		try = append(try, net.JoinHostPort(ip, fmt.Sprint(port)))
	}
	if api := os.Getenv("KUBERNETES_SERVICE_HOST"); api != "" {
		try = append(try, net.JoinHostPort(api, "443"))
	}
	p := runner.Attempt{
		Key: a.Key, Argv: append(slices.Clone(w.Probe), try...), Dir: a.Dir, Writable: a.Writable, ReadOnly: append(slices.Clone(a.ReadOnly), w.ProbeReadOnly...),
		Limits: runner.Limits{Wall: 2 * time.Minute, OutputBytes: 1 << 20, MemoryBytes: a.Limits.MemoryBytes, Processes: 256},
	}
	p.Key.Stage = probeStage
	st, out, err := runProbe(ctx, e, p)
	if err != nil {
		return runner.Status{}, fmt.Errorf("probe the network: %w", err)
	}
	if st.Phase == runner.Succeeded && reached.Load() == 0 {
		return runner.Status{}, nil
	}
	why := "the probe of the network ended " + string(st.Phase) + ": " + st.Message
	if reached.Load() > 0 || strings.Contains(out, "REACHED") {
		why = "the network can be reached from inside of the sandbox (" + strings.TrimSpace(out) + ")"
	}
	now := w.Now().UTC()
	return runner.Status{
		Phase: runner.Failed, Reason: runner.ReasonStart, Since: now, Finished: now, ExitCode: -1, Placement: st.Placement,
		Message: "nothing was run: " + why + "; use nodes whose kernel has Landlock and seccomp, or allow user namespaces",
	}, nil
}

func runProbe(ctx context.Context, e *local.Executor, a runner.Attempt) (st runner.Status, out string, err error) {
	h, err := e.Submit(ctx, a)
	if err != nil {
		return st, "", err
	}
	for {
		if st, err = e.Observe(ctx, h); err != nil {
			return st, "", err
		}
		if st.Phase.Final() {
			break
		}
		select {
		case <-ctx.Done():
			return st, "", ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	b, err := os.ReadFile(st.Stdout)
	return st, string(b), err
}

func ownAddresses() (out []string) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	return out
}

// ProbeMain is the hidden command that tries to reach the given addresses from
// inside of a sandbox; reaching one is a failure.
func ProbeMain(args []string) int {
	failed := 0
	for _, addr := range args {
		c, err := net.DialTimeout("tcp", addr, 3*time.Second)
		if err != nil {
			continue
		}
		c.Close()
		fmt.Println("REACHED", addr)
		failed = 1
	}
	return failed
}
