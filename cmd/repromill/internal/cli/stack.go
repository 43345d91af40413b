package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/repromill/repromill/cmd/repromill/internal/pipeline"
	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/fetch/git"
	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/pip"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/throughput"
)

// stack is everything that a command on runs works with.
type stack struct {
	store   *store.Store
	runner  *runner.Runner
	data    *dataset.Dataset
	outside outside
}

func (s *stack) close() { _ = s.store.Close() }

// self is the command line of a hidden entry point of this program.
func self(entry string) ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{exe, entry}, nil
}

// open opens the store, the results and the executors.
func (a *app) open(ctx context.Context) (*stack, error) {
	state := a.cfg.String("paths.state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, usererrf("set paths.state (REPROMILL_STATE) to a folder that can be written", "cannot make the state folder: %v", err)
	}
	hook := a.failpoint()
	st, err := store.Open(ctx, filepath.Join(state, "store.db"), store.Config{Now: a.now, Hook: hook})
	if err != nil {
		return nil, err
	}
	s := &stack{store: st}
	if err := s.wire(a, state, hook); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return s, nil
}

func (s *stack) wire(a *app, state string, hook func(string)) (err error) {
	if s.data, err = a.dataset(); err != nil {
		return err
	}
	worker, err := self(workerEntry)
	if err != nil {
		return err
	}
	sandboxInit, err := self(sandboxEntry)
	if err != nil {
		return err
	}
	private := a.indexHosts()
	executor, err := local.New(local.Config{
		Dir: filepath.Join(state, "attempts"), Self: worker, Sandbox: sandbox.Config{Init: sandboxInit},
		AllowPrivate: private, Now: a.now, Hook: hook,
	})
	if err != nil {
		return err
	}
	containers, err := a.dockerExecutor(state, private, hook)
	if err != nil {
		return err
	}
	executors, places := a.clusterExecutors(hook)
	executors["local"] = executor
	executors["docker"] = containers
	s.outside = sync.OnceValues(a.pipeline)
	prices := map[string]float64{}
	for sku, v := range a.cfg.Group("prices") {
		prices[sku], _ = strconv.ParseFloat(v.Value, 64)
	}
	servers, err := a.serverConfig()
	if err != nil {
		return err
	}
	s.runner, err = runner.New(runner.Config{
		Store: s.store, Executors: executors, Places: places,
		Images: map[string]runner.Images{"docker": images{a}}, Planner: s.outside,
		Source: s.outside, Assets: s.outside, Results: a.results(s.data), Dir: state,
		Now: a.now, Rand: rand.Reader, Hook: hook, Getenv: a.indexEnv, LookPath: a.lookPath,
		GPUs: len(gpuDevices()), PriceUSDPerGPUHour: prices, Indexes: []string{a.cfg.String("indexes.url")}, IndexHosts: a.cfg.List("indexes.hosts"),
		Version: createdBy(), Serving: a.serving, Servers: servers,
		Throughput: &throughput.Bench{Null: nullServer, Getenv: a.getenv, Now: a.now, Hook: hook},
		Suites:     s.bench(a), Seeds: seeds{s},
	})
	return err
}

// serverConfig says how model servers are started. They are the user's own
// programs and get all of this invocation's environment.
func (a *app) serverConfig() (server.Config, error) {
	argv, err := self(serverEntry)
	if err != nil {
		return server.Config{}, err
	}
	c := server.Config{Self: argv, Program: argv[0], Dir: filepath.Join(a.cfg.String("paths.state"), "servers"), Healthy: a.cfg.Duration("server.healthy"), Grace: a.cfg.Duration("server.grace"),
		SMI: a.cfg.String("server.nvidia_smi"), Key: func(arm string) endpoint.Secret { return endpoint.KeyFor(arm, a.getenv) }}
	for k, v := range a.env {
		c.Environ = append(c.Environ, k+"="+v)
	}
	return c, nil
}

// indexHosts are those that installing may reach at a private address too:
// sites that are cut off often answer for the index's own names there, and the
// index is the user's choice.
func (a *app) indexHosts() []string {
	hosts := a.cfg.List("indexes.hosts")
	if u, err := url.Parse(a.cfg.String("indexes.url")); err == nil {
		hosts = append(hosts, pip.Hosts(u)...)
	}
	return hosts
}

// bench carries out suites.
func (s *stack) bench(a *app) *accuracy.Bench {
	return &accuracy.Bench{Catalog: catalog.All(), Hub: s.hub(a), Getenv: a.getenv, Now: a.now, Hook: a.failpoint()}
}

// hub is the way to data sets, through the same client as plans.
func (s *stack) hub(a *app) func() (*data.Hub, error) {
	return func() (*data.Hub, error) {
		pl, err := s.outside()
		if err != nil {
			return nil, err
		}
		return data.New(data.Config{Client: pl.Client, Cache: data.CacheDir(a.getenv)}), nil
	}
}

// indexEnv is the environment that preparing may see: where packages come from.
func (a *app) indexEnv(name string) string {
	switch name {
	case "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE":
		return a.cfg.String("indexes.ca_bundle")
	}
	return a.env[name]
}

// lookPath finds a program in the PATH of the invocation.
func (a *app) lookPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(a.env["PATH"]) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// outside is the way to plans and code, built when it is first asked for: most
// commands look at runs that are there and need none of it.
type outside func() (*pipeline.Pipeline, error)

// Plan makes a plan; see runner.Planner.
func (o outside) Plan(ctx context.Context, req runner.PlanRequest, emit pipeline.Emit) (*spec.Plan, error) {
	pl, err := o()
	if err != nil {
		return nil, err
	}
	return pl.Plan(ctx, req, emit)
}

// Checkout gives the code of a plan; see runner.Source.
func (o outside) Checkout(ctx context.Context, repo, commit string, submodules bool) (string, error) {
	pl, err := o()
	if err != nil {
		return "", err
	}
	return runner.Cloned(pl.Cloner).Checkout(ctx, repo, commit, submodules)
}

// The bounds of a checkpoint that is fetched by URL.
const (
	maxAssetBytes = 256 << 30
	maxAssetTime  = 12 * time.Hour
)

// Fetch gets a file into the cache by content; see runner.Assets.
func (o outside) Fetch(ctx context.Context, url string) (path, sha256 string, bytes int64, err error) {
	pl, err := o()
	if err != nil {
		return "", "", 0, err
	}
	res, err := pl.Client.Get(ctx, fetch.Request{URL: url, NoBody: true, MaxBytes: maxAssetBytes, Timeout: maxAssetTime})
	if err != nil {
		return "", "", 0, err
	}
	return res.Path, res.SHA256, res.Size, nil
}

// pipeline builds the way from a target to a plan.
func (a *app) pipeline() (*pipeline.Pipeline, error) { return a.pipelineInto("") }

// fetchConfig is how this invocation reaches the outside.
func (a *app) fetchConfig(record string) (fetch.Config, error) {
	cfg, err := fetch.ConfigFromEnv(a.getenv)
	if err != nil {
		return cfg, err
	}
	cfg.CacheDir = a.cfg.String("paths.cache")
	cfg.Mirror = a.cfg.String("mirror")
	cfg.Record = record
	cfg.Now, cfg.Hook = a.now, a.failpoint()
	cfg.Progress = func(p fetch.Progress) {
		switch p.Phase {
		case "body":
			a.fetching(p.Bytes, p.Total, "B", p.URL)
		default:
			a.fetching(0, 0, "", fmt.Sprintf("%s %s (%s)", p.Phase, p.Wait.Round(100*time.Millisecond), p.Reason))
		}
	}
	cfg.UserAgent = "repromill/" + buildVersion().Version
	cfg.Endpoints, cfg.Limits = a.endpoints()
	if cfg.Mirror != "" {
		if info, err := os.Stat(cfg.Mirror); err != nil || !info.IsDir() {
			return cfg, usererrf("name a folder filled by `repromill mirror add TARGET`", "the mirror %q is not a folder", cfg.Mirror)
		}
	}
	return cfg, nil
}

// pipelineInto is pipeline, with every answer also written to a mirror.
func (a *app) pipelineInto(record string) (*pipeline.Pipeline, error) {
	cfg, err := a.fetchConfig(record)
	if err != nil {
		return nil, err
	}
	client, err := fetch.New(cfg)
	if err != nil {
		return nil, err
	}
	child, err := self(gitEntry)
	if err != nil {
		return nil, err
	}
	gitCfg := git.Config{
		CacheDir: cfg.CacheDir, Mirror: cfg.Mirror, Trees: client.Overlay().Trees, Child: child,
		Limits: a.gitLimits(), Endpoints: gitEndpoints(cfg.Endpoints), Now: a.now, Hook: a.failpoint(),
		Progress: func(p git.Progress) {
			if p.Phase == "receive" {
				a.fetching(p.Bytes, 0, "B", p.Repo)
			} else {
				a.fetching(int64(p.Files), 0, "files", p.Phase+" "+p.Repo)
			}
		},
	}
	gitCfg.Token = func(host string) string {
		if gitCfg.Endpoints[host] != "" {
			return "" // a token is for the host that gave it, not for who stands in for it
		}
		return a.gitToken(host)
	}
	cloner, err := git.New(gitCfg)
	if err != nil {
		return nil, err
	}
	costs, err := a.costs()
	if err != nil {
		return nil, err
	}
	return &pipeline.Pipeline{Intake: intake.New(intake.Config{Client: client}), Client: client, Now: a.now, Cloner: cloner, CreatedBy: createdBy(), Costs: costs}, nil
}

// useMirrorOf makes a resumed run use the mirror it was made with, unless
// another one is named. It comes before anything asks the outside.
func (s *stack) useMirrorOf(ctx context.Context, a *app, id string) error {
	req, err := s.runner.Request(ctx, id)
	if err != nil || req.Mirror == "" || a.cfg.String("mirror") != "" {
		return err
	}
	return a.cfg.SetFlag("mirror", req.Mirror, "mirror (of the run)")
}

// report reads the report of a committed run.
func (s *stack) report(runID string) (*report.Report, error) {
	if _, err := s.data.Manifest(runID); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usererrf("`repromill results list` lists what is committed; `repromill status` lists every run", "run %q has no committed results", runID)
		}
		return nil, err
	}
	return readReport(s.data, runID)
}

func readReport(data *dataset.Dataset, runID string) (*report.Report, error) {
	b, err := data.Attachment(runID, "report.json")
	if err != nil {
		return nil, err
	}
	var rep report.Report
	if err := json.Unmarshal(b, &rep); err != nil {
		return nil, fmt.Errorf("decode report of run %s: %w", runID, err)
	}
	return &rep, nil
}

func reportStyle(width int, color bool) report.Style { return report.Style{Width: width, Color: color} }
