package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/runner/gpu"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/seed"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/throughput"
)

// podMain is the program's part in pods: a command of a run in its sandbox, the
// client of a suite's block, a seed of the cache, or a look at GPUs.
func podMain(args []string, exe string) int {
	if len(args) == 2 && args[0] == "shard" {
		return shardMain(args[1])
	}
	if len(args) == 2 && args[0] == "gpus" {
		if err := gpu.Write(args[1], gpu.Look("/")); err != nil {
			fmt.Fprintln(os.Stderr, "repromill worker:", err)
		}
		return exitOK // what is not known is a column less, and no reason to end a server
	}
	if len(args) > 1 && args[0] == "seed" {
		return pod.SeedMain(args[1:], hubOfPod)
	}
	return pod.Main(args, exe)
}

// shardMain asks the block of a suite whose number the Job has given to this pod.
func shardMain(folder string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	index, err := strconv.Atoi(os.Getenv("JOB_COMPLETION_INDEX"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "repromill worker: JOB_COMPLETION_INDEX names no block; only the pods of a suite call this")
		return exitUser
	}
	f := shard.Folder(folder)
	hub := func() (*data.Hub, error) {
		s, err := f.Declared()
		return data.New(data.Config{Client: nowhere{s.Data}, Cache: s.Data}), err
	}
	code, err := shard.Client{Folder: f, Index: index, Pod: os.Getenv("POD_UID"), Node: os.Getenv("NODE_NAME"), Out: os.Stdout, Now: time.Now,
		Suites: &accuracy.Bench{Catalog: catalog.All(), Hub: hub, Now: time.Now},
		Seen:   shard.SeenFile,
		Turns:  &throughput.Bench{Null: nullServer, Now: time.Now}}.Run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "repromill worker:", err)
	}
	return code
}

// nowhere is the way to the hub of a pod that has none: what the cache lacks is an
// error.
type nowhere struct{ cache string }

// Get implements [data.Getter].
func (n nowhere) Get(_ context.Context, r fetch.Request) (*fetch.Response, error) {
	return nil, usererrf("take the run up again, which brings it there", "%s is not in the cluster's cache %s, and pods read nothing else", r.URL, n.cache)
}

// URL implements [data.Getter].
func (nowhere) URL(_ fetch.Site, path string, _ url.Values) (string, error) {
	return "https://huggingface.co/" + path, nil
}

// hubOfPod is a seed's way to the hub.
func hubOfPod() (seed.Getter, error) {
	dir, err := os.MkdirTemp("", "seed-*")
	if err != nil {
		return nil, fmt.Errorf("make folder of seed: %w", err)
	}
	cfg, err := fetch.ConfigFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	cfg.CacheDir, cfg.UserAgent = filepath.Join(dir, "cache"), "repromill/"+buildVersion().Version
	for _, e := range cfg.Endpoints { // a site's own mirror, which needs no manners
		if e != "" {
			cfg.Limits = map[fetch.Site]fetch.Limit{fetch.HF: {Conns: 4}}
		}
	}
	return fetch.New(cfg)
}

// seeds fills a cluster's cache through this program's own way to the hub.
type seeds struct{ *stack }

// Seed implements [runner.Seeds].
func (s seeds) Seed(ctx context.Context, dir string, wants []seed.Want, tell func(string)) error {
	pl, err := s.outside()
	if err != nil {
		return err
	}
	return seed.Ensure(ctx, seed.Config{Dir: dir, Client: pl.Client, Who: fmt.Sprintf("submitter-%d-%d", os.Getpid(), time.Now().UnixNano()), Tell: tell}, wants)
}
