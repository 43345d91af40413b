package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/suites/load/simserver"
)

// simEntry is a simulated server for this program's own use; it serves until its
// standard input ends.
const simEntry = "__sim-server"

// childServer starts a simulated server as a process of its own, so that it
// takes no processor time from the load generator's. It ends when its parent
// does, however that ends.
func childServer(ctx context.Context, c simserver.Config) (url string, stop func(), err error) {
	fail := func(err error) (string, func(), error) { return "", nil, fmt.Errorf("start simulated server: %w", err) }
	argv, err := self(simEntry)
	if err != nil {
		return fail(err)
	}
	conf, err := json.Marshal(c)
	if err != nil {
		return fail(err)
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], string(conf))...)
	cmd.Env = []string{}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fail(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	stop = func() { in.Close(); _ = cmd.Wait() }
	var buf [256]byte
	n, err := pipe.Read(buf[:])
	if err != nil {
		stop()
		return fail(err)
	}
	return strings.TrimSpace(string(buf[:n])), stop, nil
}

func simMain(args []string) int {
	var c simserver.Config
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &c) != nil {
		fmt.Fprintln(os.Stderr, "this entry is for the program's own use")
		return exitOurs
	}
	if c.Null {
		giveWay()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitOurs
	}
	fmt.Println("http://" + l.Addr().String())
	s := simserver.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.Run(ctx)
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return exitOurs
	}
	return exitOK
}

func (a *app) loadServerCmd() *cobra.Command {
	var c simserver.Config
	var port int
	var host, addressFile string
	var stallAt, stallFor time.Duration
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Serve a simulated model that speaks vLLM's protocol, to try load on",
		Long: `Serve a model that is not there: continuous batching, a KV cache that fills up,
preemption and chunked prefill behave as in vLLM; the words mean nothing. It can
be told to misbehave. Whatever is measured on it is marked simulated.`,
		Example: `  repromill load server --port 8000
  repromill load server --port 8000 --step 20ms --kv-tokens 40000
  repromill load server --port 8000 --stall-at 5s --stall-for 2s`,
		Args: exactArgs(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if stallFor > 0 {
				c.Stalls = []simserver.Stall{{At: stallAt, For: stallFor}}
			}
			return a.serveSimulated(cmd.Context(), net.JoinHostPort(host, strconv.Itoa(port)), a.expand(addressFile), c)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&host, "host", "127.0.0.1", "address to listen on")
	fl.IntVar(&port, "port", 8000, "port to listen on, 0 for any")
	fl.StringVar(&addressFile, "address-file", "", "write the server's address to `FILE` when it listens")
	fl.StringVar(&c.Model, "model", "simulated", "name of the model")
	fl.DurationVar(&c.StepBase, "step", 5*time.Millisecond, "time of a step")
	fl.DurationVar(&c.PerSequence, "per-sequence", 20*time.Microsecond, "more for each running sequence")
	fl.DurationVar(&c.PerPrefill, "per-input-token", 10*time.Microsecond, "more for each prompt token read")
	fl.IntVar(&c.MaxBatch, "max-num-seqs", 256, "sequences that run at once")
	fl.IntVar(&c.KVTokens, "kv-tokens", 500_000, "tokens that the KV cache holds")
	fl.IntVar(&c.PrefillBudget, "max-num-batched-tokens", 2048, "prompt tokens read in one step")
	fl.BoolVar(&c.Null, "null", false, "no scheduler: every stream is paced by --ttft and --itl, and GET /truth says how it came out")
	fl.DurationVar(&c.TTFT, "ttft", 20*time.Millisecond, "with --null, time to the first token")
	fl.DurationVar(&c.ITL, "itl", 10*time.Millisecond, "with --null, time between tokens")
	fl.BoolVar(&c.PrefixCache, "prefix-cache", false, "keep prefixes")
	fl.DurationVar(&stallAt, "stall-at", 0, "stand still at this time")
	fl.DurationVar(&stallFor, "stall-for", 0, "for so long")
	fl.Float64Var(&c.Faults.EarlyStop, "early-stop", 0, "share of outputs that end half way")
	fl.Float64Var(&c.Faults.Refuse, "refuse", 0, "share of requests answered with HTTP 500")
	fl.Float64Var(&c.Faults.CloseMid, "cut", 0, "share of streams that are cut")
	fl.IntVar(&c.Faults.PerChunk, "tokens-per-chunk", 1, "tokens sent at once")
	fl.Float64Var(&c.Faults.Reasoning, "reasoning", 0, "share of each output that is reasoning")
	fl.Uint64Var(&c.Seed, "seed", 0, "seed of words and faults")
	return cmd
}

func (a *app) serveSimulated(ctx context.Context, addr, file string, c simserver.Config) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return usererrf("choose another --port", "listen: %v", err)
	}
	s := simserver.New(c)
	url := fmt.Sprintf("http://%s/v1", l.Addr())
	if file != "" {
		if err := atomicfile.Write(file, []byte(url+"\n"), atomicfile.Options{}); err != nil {
			l.Close()
			return usererrf("give --address-file a file in a folder that can be written", "write address: %v", err)
		}
	}
	fmt.Fprintf(a.stdout, "simulated model %q at %s; Ctrl-C ends it\n", c.Model, url)
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go s.Run(ctx)
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
