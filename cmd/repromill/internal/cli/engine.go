package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner/engine"
	"github.com/repromill/repromill/runner/engine/api"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/kernel"
)

func (a *app) engineCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "Serve a small model on this machine's CPU",
		Long: `The embedded engine computes small language models on the CPU, in BF16, FP8 and
NVFP4 with the arithmetic that the formats prescribe. It is for models of up to
about a billion parameters and says so for others; vLLM and SGLang are for those.`,
		Args: exactArgs(0, "a subcommand"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.engineServeCmd())
	return cmd
}

// engineFlags say how a model is served; names are vLLM's where it has them.
type engineFlags struct {
	host, name, addressFile, template, dtype string
	port, maxLen, maxSeqs, cacheMiB, threads int
	seed                                     uint64
	weightOnly, yield                        bool
}

func (a *app) engineServeCmd() *cobra.Command {
	var f engineFlags
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "Serve a checkpoint in a folder over vLLM's OpenAI-compatible protocol",
		Long: `Serve a checkpoint in a folder: config.json, tokenizer.json and safetensors of a
Llama-, Mistral-, Qwen2- or Qwen3-like decoder, in BF16, float32, FP8 (one scale
per tensor or row) or NVFP4. Weights of NVFP4 are multiplied with inputs rounded
to NVFP4 where the checkpoint asks for that (W4A4), or with --weight-only as they
are (W4A16), as GPUs without FP4 arithmetic do.

An answer depends on the request alone, not on what else is being answered.

Endpoints: /v1/chat/completions, /v1/completions, /v1/models, /tokenize,
/detokenize, /health, /version and /metrics.`,
		Example: `  repromill engine serve ./tiny --port 8000
  repromill engine serve ./tiny-nvfp4 --port 8001 --served-model-name tiny-nvfp4
  repromill engine serve ./SmolLM-135M --max-model-len 2048 --threads 2`,
		Args: exactArgs(1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.engineServe(cmd.Context(), &f, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.host, "host", "127.0.0.1", "address to listen on")
	fl.IntVar(&f.port, "port", 8000, "port to listen on, 0 for any")
	fl.StringVar(&f.addressFile, "address-file", "", "write the server's address to `FILE` when it listens")
	fl.StringVar(&f.name, "served-model-name", "", "`NAME` of the model in requests (default: the folder as given)")
	fl.StringVar(&f.template, "chat-template", "", "take the chat template from `FILE`")
	fl.StringVar(&f.dtype, "dtype", "auto", "of what is not quantised: auto, bfloat16 or float32")
	fl.BoolVar(&f.weightOnly, "weight-only", false, "do not round the inputs of NVFP4 weights (W4A16)")
	fl.IntVar(&f.maxLen, "max-model-len", 0, "tokens of a prompt with its answer (default: the model's context, at most 32768 and what fits into the cache)")
	fl.IntVar(&f.maxSeqs, "max-num-seqs", 0, "requests computed at once (default 256)")
	fl.IntVar(&f.cacheMiB, "kv-cache-mib", 0, "memory for keys and values (default: at most 1024, or what --max-model-len needs)")
	fl.IntVar(&f.threads, "threads", runtime.GOMAXPROCS(0), "threads that compute")
	fl.Uint64Var(&f.seed, "seed", 0, "seed of requests that bring none")
	fl.BoolVar(&f.yield, "yield", false, "let all other programs of this machine go first, such as those that time the answers")
	return cmd
}

func (f *engineFlags) check() error {
	switch {
	case f.dtype != "auto" && f.dtype != "bfloat16" && f.dtype != "float32":
		return usererrf("give --dtype auto, bfloat16 or float32", "--dtype %q is not known", f.dtype)
	case f.maxLen < 0 || f.maxSeqs < 0 || f.cacheMiB < 0:
		return usererrf("leave the flag away for its default", "--max-model-len, --max-num-seqs and --kv-cache-mib are not negative")
	case f.maxSeqs > 4096:
		return usererrf("give --max-num-seqs 256", "--max-num-seqs %d is more than 4096", f.maxSeqs)
	case f.threads < 1 || f.threads > 1024:
		return usererrf("give the number of cores", "--threads %d", f.threads)
	}
	return nil
}

func (a *app) engineServe(ctx context.Context, f *engineFlags, dir string) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.yield {
		giveWay()
	}
	path := a.expand(dir)
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return usererrf("name a folder with config.json, tokenizer.json and safetensors", "%s is no folder", path)
	}
	cfg := api.Config{
		Source: model.Folder(path), Root: path, Name: cmp.Or(f.name, dir), Version: buildVersion().Version,
		Load:   decoder.LoadConfig{ID: path, WeightOnly: f.weightOnly, Float32: f.dtype == "float32"},
		Engine: engine.Config{MaxModelLen: f.maxLen, MaxBatch: f.maxSeqs, CacheBytes: int64(f.cacheMiB) << 20, Threads: f.threads, Seed: f.seed, Now: a.now},
	}
	if f.template != "" {
		b, err := readBounded(a.expand(f.template))
		if err != nil {
			return usererrf("give --chat-template a file with a Jinja template", "read chat template: %v", err)
		}
		cfg.ChatTemplate = string(b)
	}
	began := a.now()
	s, err := api.Open(ctx, cfg)
	var refused *engine.RequestError
	if errors.As(err, &refused) {
		return usererrf("change --max-model-len or --kv-cache-mib", "%s", refused.Why)
	}
	if err != nil {
		return err
	}
	if f.template != "" && s.NoChat() != "" {
		return usererrf("give --chat-template a template that needs no more than loops, conditions, filters and string methods", "%s", s.NoChat())
	}
	l, err := net.Listen("tcp", net.JoinHostPort(f.host, strconv.Itoa(f.port)))
	if err != nil {
		return usererrf("choose another --port", "listen: %v", err)
	}
	url := fmt.Sprintf("http://%s/v1", l.Addr())
	if f.addressFile != "" {
		if err := atomicfile.Write(a.expand(f.addressFile), []byte(url+"\n"), atomicfile.Options{}); err != nil {
			l.Close()
			return usererrf("give --address-file a file in a folder that can be written", "write address: %v", err)
		}
	}
	m, e := s.Model(), s.Engine().Config()
	fmt.Fprintf(a.stdout, "%s: %s, %d parameters, %s, kernel %s, %d threads, context %d, %d tokens of cache; loaded in %.1f s\n", clean(s.Name()), m.Config.Type,
		m.Facts.Params.Total, m.Math(), kernel.Name(), e.Threads, e.MaxModelLen, s.Engine().Blocks()*decoder.Block, a.now().Sub(began).Seconds())
	if why := s.NoChat(); why != "" {
		fmt.Fprintln(a.stderr, "repromill: chats will be refused:", clean(why))
	}
	fmt.Fprintf(a.stdout, "serving at %s; Ctrl-C ends it\n", url)
	return serveEngine(ctx, s, l)
}

// serveEngine serves until ctx ends or the engine fails.
func serveEngine(ctx context.Context, s *api.Server, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx)
		srv.Close()
	}()
	err := srv.Serve(l)
	cancel()
	if failed := <-ended; failed != nil {
		return fmt.Errorf("compute: %w", failed)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
