// Package server starts, watches, restarts and stops the model servers of a
// plan's arms: vLLM, SGLang or any command that serves OpenAI's protocol, as a
// process or as a container.
//
// A server runs under a supervisor, which is this program again. The supervisor
// takes the server down, with all that it started, when it is told to, and also
// when whoever started it is gone, be it by Ctrl-C or kill -9. Should the
// supervisor die in the same way, the server's first process dies with it, and
// what is left is found by a mark in its environment: at once by whoever started
// it, or by the next [Host.Sweep].
//
// The server's output is kept in a file for each start; what it says of kernels,
// cache, compilation and graphs is read from there ([ParseLog]), and so is the
// reason when it does not come up ([StartError]).
package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/servers"
)

// Config says how servers are started. Dir, Self and How are needed.
type Config struct {
	Dir  string   // of records and locks: one for all programs that share GPUs
	Logs string   // "" is Dir
	Self []string // the command line that runs [SuperviseMain] in this program
	// Program is this program, for the engine that comes with it; "" is the one in
	// PATH.
	Program string
	// How says how an arm is served: vllm, sglang, repromill, docker:IMAGE or a
	// command template with {port}; "" where nobody says.
	How func(arm spec.Arm) string
	// Key is the API key that an arm's server wants, if any.
	Key func(arm string) endpoint.Secret

	Host    string        // to listen on; "" is 127.0.0.1
	Healthy time.Duration // to the first healthy answer; 0 is 45 minutes, as large models load slowly
	Grace   time.Duration // for a server to end by itself; 0 is 20 s
	SMI     string        // nvidia-smi; "" is the one in PATH

	Environ  []string // of servers; they get all of it, as the hub's token and caches are in there
	LookPath func(string) (string, error)
	Now      func() time.Time
	Hook     func(point string)
	// Progress tells what a start is at, a few times a second; may be nil.
	Progress func(arm, doing string)
}

// Host starts servers on this machine. It is safe for concurrent use.
type Host struct {
	cfg  Config
	http *http.Client

	mu    sync.Mutex
	freed time.Time // when a server of ours last left its GPUs
}

var _ servers.Starter = (*Host)(nil)

// New checks the configuration.
func New(cfg Config) (*Host, error) {
	if cfg.Dir == "" || len(cfg.Self) == 0 || cfg.How == nil {
		return nil, errors.New("new server host: Dir, Self and How are needed")
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("new server host: %w", err)
	}
	if cfg.Logs == "" {
		cfg.Logs = cfg.Dir
	}
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	if cfg.Healthy == 0 {
		cfg.Healthy = 45 * time.Minute
	}
	if cfg.Grace == 0 {
		cfg.Grace = 20 * time.Second
	}
	if cfg.SMI == "" {
		cfg.SMI = "nvidia-smi"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, string) {}
	}
	if cfg.Key == nil {
		cfg.Key = func(string) endpoint.Secret { return "" }
	}
	h := &Host{cfg: cfg, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if h.cfg.LookPath == nil {
		h.cfg.LookPath = h.lookPath
	}
	return h, nil
}

func (h *Host) getenv(name string) string {
	for _, kv := range h.cfg.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// lookPath finds a program in the servers' own PATH.
func (h *Host) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return filepath.Abs(name)
	}
	for _, dir := range filepath.SplitList(h.getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not in PATH", name)
}

// Start implements [servers.Starter]. Its error is a [*UserError], a
// [*StartError] or the context's.
func (h *Host) Start(ctx context.Context, arm spec.Arm) (servers.Server, error) {
	return h.up(ctx, arm, false)
}

// Timed starts servers whose answers are timed from this machine: the engine that
// comes with this program then takes no processor from whoever times it.
func (h *Host) Timed() servers.Starter { return timed{h} }

type timed struct{ *Host }

// Start implements [servers.Starter].
func (t timed) Start(ctx context.Context, arm spec.Arm) (servers.Server, error) {
	return t.up(ctx, arm, true)
}

func (h *Host) up(ctx context.Context, arm spec.Arm, timed bool) (servers.Server, error) {
	for _, dir := range []string{h.cfg.Dir, h.cfg.Logs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make folder of servers: %w", err)
		}
	}
	if _, err := h.Sweep(ctx); err != nil {
		return nil, err
	}
	c, err := h.compose(arm, place{h.cfg.Host, 1}, timed)
	if err != nil {
		return nil, err
	}
	s := &Server{host: h, arm: arm, timed: timed}
	if s.lease, err = h.take(ctx, arm.Name, c.gpus); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		h.free(s.lease)
		return nil, err
	}
	return s, nil
}

// compose is the command that serves an arm.
func (h *Host) compose(arm spec.Arm, at place, timed bool) (*command, error) {
	how := h.cfg.How(arm)
	if how == Own && !isDir(arm.Model) {
		return nil, &UserError{fmt.Sprintf("arm %s is %s, and the embedded engine serves models in folders", arm.Name, arm.Model),
			"download it, as with: hf download " + arm.Model + " --local-dir ./model; then name ./model"}
	}
	c, err := compose(how, arm, at)
	if err != nil || how != Own {
		return c, err
	}
	if h.cfg.Program != "" {
		c.argv[0] = h.cfg.Program
	}
	// Whoever times the answers needs a processor, too; answers are the same.
	if !slices.Contains(c.argv, "--threads") {
		c.argv = append(c.argv, "--threads", strconv.Itoa(max(1, runtime.GOMAXPROCS(0)-1)))
	}
	if timed {
		c.argv = append(c.argv, "--yield")
	}
	return c, nil
}

// Server is a server that this program started.
type Server struct {
	host  *Host
	arm   spec.Arm
	timed bool
	lease *lease

	mu     sync.Mutex
	proc   *process
	at     place
	facts  servers.Facts
	client *endpoint.Client
	starts int
	done   bool
}

var _ servers.Server = (*Server)(nil)

// tries is how often a start is tried whose port was taken in the meantime.
const tries = 3

// start brings a process up at the place where the last one was, if that is free.
func (s *Server) start(ctx context.Context) error {
	for try := 1; ; try++ {
		at := s.at
		if at.port == 0 || try > 1 || !portFree(at) {
			port, err := freePort(s.host.cfg.Host)
			if err != nil {
				return err
			}
			at = place{s.host.cfg.Host, port}
		}
		err := s.startAt(ctx, at)
		var failed *StartError
		if err == nil || try == tries || !errors.As(err, &failed) || !failed.port {
			return err
		}
	}
}

func (s *Server) startAt(ctx context.Context, at place) error {
	h := s.host
	c, err := h.compose(s.arm, at, s.timed)
	if err != nil {
		return err
	}
	client, err := endpoint.New(endpoint.Config{URL: fmt.Sprintf("http://%s:%d/v1", at.host, at.port), Key: h.cfg.Key(s.arm.Name), Now: h.cfg.Now})
	if err != nil {
		return err
	}
	log := filepath.Join(h.cfg.Logs, fmt.Sprintf("%s-%d.log", safe(s.arm.Name), s.nextLog()))
	began := h.cfg.Now()
	proc, err := h.launch(s.arm, c, s.lease, log)
	if err != nil {
		client.Close()
		return err
	}
	if err := h.await(ctx, s.arm.Name, c, proc, at, began); err != nil {
		client.Close()
		return errors.Join(err, proc.stop())
	}
	facts, err := readFacts(log)
	if err != nil {
		client.Close()
		return errors.Join(err, proc.stop())
	}
	facts.ReadyS, facts.Log = h.cfg.Now().Sub(began).Seconds(), log
	if facts.Engine == "" {
		facts.Engine = c.engine
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc, s.at, s.facts, s.client = proc, at, facts, client
	s.starts++
	return nil
}

// nextLog is a number for which there is no log yet.
func (s *Server) nextLog() int {
	for n := 1; ; n++ {
		if _, err := os.Lstat(filepath.Join(s.host.cfg.Logs, fmt.Sprintf("%s-%d.log", safe(s.arm.Name), n))); err != nil {
			return n
		}
	}
}

func readFacts(log string) (servers.Facts, error) {
	f, err := os.Open(log)
	if err != nil {
		return servers.Facts{}, fmt.Errorf("read log of server: %w", err)
	}
	defer f.Close()
	facts, err := ParseLog(f)
	if err != nil {
		return facts, fmt.Errorf("read log of server: %w", err)
	}
	return facts, nil
}

// Endpoint implements [servers.Server].
func (s *Server) Endpoint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.URL()
}

// Facts implements [servers.Server].
func (s *Server) Facts() servers.Facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts
}

// Identity implements [servers.Server].
func (s *Server) Identity(ctx context.Context) (endpoint.Identity, error) {
	s.mu.Lock()
	proc, client, facts := s.proc, s.client, s.facts
	s.mu.Unlock()
	if how, ended := proc.ended(); ended {
		return endpoint.Identity{}, s.endedError(proc, how)
	}
	id, err := client.Identity(ctx)
	if err != nil {
		// Its connections close before its end is known.
		select {
		case <-proc.gone:
			return id, s.endedError(proc, proc.how)
		case <-ctx.Done():
		case <-time.After(s.host.cfg.Grace/10 + time.Second):
		}
		return id, err
	}
	fill := func(to *string, v string) {
		if *to == "" {
			*to = v
		}
	}
	fill(&id.Engine, facts.Engine)
	fill(&id.Version, facts.Version)
	fill(&id.KVDtype, facts.KVDtype)
	id.Kernel = facts.Kernel()
	if facts.Attention != "" {
		id.Kernel = strings.TrimPrefix(id.Kernel+"+"+facts.Attention, "+")
	}
	if id.Revision == "" && s.arm.Model != "" && (id.Model == s.arm.Model || id.Root == s.arm.Model) {
		id.Revision = s.arm.Revision
	}
	if id.KVTokens == 0 {
		id.KVTokens = facts.KVTokens
	}
	if id.MaxModelLen == 0 {
		id.MaxModelLen = facts.MaxModelLen
	}
	if id.StartTime.IsZero() {
		id.StartTime = proc.began.UTC()
	}
	if s.lease != nil && len(s.lease.gpus) > 0 {
		id.GPUUUIDs, id.Driver = s.lease.uuids(), s.lease.gpus[0].Driver
	}
	return id, nil
}

func (s *Server) endedError(p *process, how string) error {
	return &servers.EndedError{Err: startError(s.arm.Name, p.command, p.log, 0, "ended while it was needed ("+how+")")}
}

// Restart implements [servers.Server].
func (s *Server) Restart(ctx context.Context) error {
	if s.done {
		return fmt.Errorf("restart server of arm %s: it was stopped for good", s.arm.Name)
	}
	if err := s.proc.stop(); err != nil {
		return err
	}
	s.client.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.start(ctx)
}

// Stop implements [servers.Server].
func (s *Server) Stop(context.Context) error {
	if s.done {
		return nil
	}
	s.done = true
	err := s.proc.stop()
	s.client.Close()
	s.host.free(s.lease)
	return err
}

var unsafeName = regexp.MustCompile(`[^\w.-]+`)

// safe is a name as a file can have it.
func safe(name string) string {
	name = strings.Trim(unsafeName.ReplaceAllString(name, "_"), ".")
	if name == "" {
		name = "_"
	}
	return name[:min(len(name), 100)]
}

func token() string {
	var b [12]byte
	if _, err := rand.Read(b[:]); err != nil { // the system's entropy does not fail
		panic(err)
	}
	return hex.EncodeToString(b[:])
}
