package cli

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/web"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/bundle"
	runqueue "github.com/repromill/repromill/runner/queue"
	"github.com/repromill/repromill/runner/store"
)

// listenFlags are the options of `serve`.
type listenFlags struct {
	serveFlags
	listen      string
	hosts       []string
	keys        bool
	twoKeys     bool
	https       bool
	cert, key   string
	allowDocker bool
	executing   int
	planning    int
	drain       time.Duration
	nightly     string
}

func (a *app) serveCmd() *cobra.Command {
	var f listenFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Pages and an API: paste a URL, approve the plan, watch, read the verdict",
		Long: `Serve the web pages and the JSON API over the same runs and results as the
command line. Opening /abs/2604.08075 or /owner/model shows what is known; planning
starts with a form of that page, and nothing runs before its plan is approved.

On the loopback interface no login is needed. Anywhere else the server demands API
keys (repromill keys create) and refuses to start without one. Submissions wait in
the state folder: after a restart or a kill the next server goes on with them, and
commands that run are adopted. SIGTERM ends it after --drain at most.`,
		Example: `  repromill serve
  repromill serve --mirror examples/mirror --listen 127.0.0.1:9000
  repromill keys create --name ci --scope submit,approve --gpu-hours-per-day 8
  repromill serve --listen 0.0.0.0:8080 --host mill.example.org --https`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	f.serveFlags.add(fl)
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`ADDRESS` to listen at")
	fl.StringVar(&f.nightly, "nightly", "", "show the nights of the schedule in `FILE`, which `repromill nightly run` works")
	fl.StringSliceVar(&f.hosts, "host", nil, "`NAME` by which browsers reach the server (repeatable); requests for other names are refused")
	fl.BoolVar(&f.keys, "require-keys", false, "demand API keys on the loopback interface too")
	fl.BoolVar(&f.twoKeys, "two-keys", false, "a run is approved with another key than it was submitted with")
	fl.BoolVar(&f.https, "https", false, "browsers come by https, through a proxy before this server")
	fl.StringVar(&f.cert, "tls-cert", "", "serve https with the certificate in `FILE`")
	fl.StringVar(&f.key, "tls-key", "", "and its key in `FILE`")
	fl.BoolVar(&f.allowDocker, "allow-docker", false, "let submitted runs use the Docker engine, which gives root on this machine to whoever breaks out")
	fl.IntVar(&f.executing, "concurrency", 0, "runs of a queue that are executed at once (configuration: concurrency; 64 for clusters)")
	fl.IntVar(&f.planning, "plan-concurrency", 4, "runs planned at once; the sites' limits hold over all of them")
	fl.DurationVar(&f.drain, "drain", 20*time.Second, "at the end, how long runs may take to finish before they are left for the next server")
	return cmd
}

// loopback reports whether a name or address is this machine alone.
func loopback(host string) bool {
	host = strings.ToLower(strings.Trim(host, "[]"))
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkListen settles by which names the server is reached and whether keys are
// demanded.
func (f *listenFlags) checkListen() (hosts []string, err error) {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return nil, usererrf("give HOST:PORT, such as 127.0.0.1:8080", "--listen %q is no address: %v", f.listen, err)
	}
	if (f.cert == "") != (f.key == "") {
		return nil, usererrf("give both --tls-cert and --tls-key", "https needs a certificate and its key")
	}
	f.https = f.https || f.cert != ""
	hosts = []string{"localhost", "127.0.0.1", "::1"}
	if !loopback(host) {
		f.keys = true
		ip := net.ParseIP(host)
		switch {
		case host != "" && (ip == nil || !ip.IsUnspecified()):
			hosts = append(hosts, strings.ToLower(host))
		case len(f.hosts) == 0:
			return nil, usererrf("add --host NAME, once for each name that browsers use", "the server listens at every address, and it is not said by which names it is reached")
		}
	}
	for _, h := range f.hosts {
		if !loopback(h) {
			f.keys = true
		}
		hosts = append(hosts, strings.ToLower(strings.Trim(h, "[]")))
	}
	return hosts, nil
}

// oneServer makes this process the only server of the state folder.
func oneServer(state string) (*flock.Flock, error) {
	path := filepath.Join(state, "serve.lock")
	l := flock.New(path)
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if !ok {
		who, _ := os.ReadFile(path)
		return nil, usererrf("stop that server, or give this one another state folder with REPROMILL_STATE", "another server uses the state folder %s (%s)", state, firstOf(strings.TrimSpace(string(who)), "unknown process"))
	}
	return l, nil
}

// secret is what sessions are signed with; it survives restarts.
func secret(state string) ([]byte, error) {
	path := filepath.Join(state, "serve.secret")
	b, err := os.ReadFile(path)
	if err == nil && len(b) >= 32 {
		return b, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	b = make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("make secret: %w", err)
	}
	// A torn one is too short and made again; its sessions end, nothing else.
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("keep secret: %w", err)
	}
	return b, nil
}

func (a *app) serve(ctx context.Context, f *listenFlags) error {
	hosts, err := f.checkListen()
	if err != nil {
		return err
	}
	if err := a.checkFolder("paths.results"); err != nil {
		return err
	}
	if a.serving, err = f.serving(""); err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	if _, err := st.outside(); err != nil {
		return err
	}
	state := a.cfg.String("paths.state")
	lock, err := oneServer(state)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := a.needKey(ctx, st, f); err != nil {
		return err
	}
	sec, err := secret(state)
	if err != nil {
		return err
	}
	queues, executing, err := a.servedQueues(ctx, f)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if a.quiet {
		level = slog.LevelError
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
	var srv *web.Server
	q := runqueue.New(runqueue.Config{
		Store: st.store, Driver: st.runner, Planning: f.planning, Executing: executing, Grace: f.drain, Log: log,
		Approve: func(ctx context.Context, w store.Waiting) error { return srv.AutoApprove(ctx, w) },
	})
	var nights web.Nightly
	if f.nightly != "" {
		if _, _, err := a.schedule(f.nightly, nil); err != nil {
			return err
		}
		nights = a.nightlyGrid(f.nightly, st.data)
	}
	srv, err = web.New(web.Config{
		Nightly: nights,
		Store:   st.store, Runner: st.runner, Data: st.data, Queue: q, Queues: queues, Now: a.now, Rand: rand.Reader, Secret: sec, Log: log,
		Mirror: a.cfg.String("mirror"), Version: createdBy(), Hosts: hosts, Redact: bundle.NewRedactor(a.env), Keys: f.keys, TwoKeys: f.twoKeys, Secure: f.https,
	})
	if err != nil {
		return err
	}
	return a.listen(ctx, f, srv, q, lock, log)
}

// needKey refuses to serve strangers without a key that could be asked for.
func (a *app) needKey(ctx context.Context, st *stack, f *listenFlags) error {
	if !f.keys {
		return nil
	}
	keys, err := st.store.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := access.Of(k, a.now()); err == nil {
			return nil
		}
	}
	return usererrf("make one: repromill keys create --name you --scope admin; or listen at 127.0.0.1", "the server would be reached from other machines, and there is no valid API key")
}

// servedQueues are the executors that submitted runs may use, the default
// first, with how many runs each takes at once.
func (a *app) servedQueues(ctx context.Context, f *listenFlags) ([]string, map[string]int, error) {
	choice := runFlags{executor: "auto"}
	if err := a.chooseExecutor(ctx, &choice); err != nil {
		return nil, nil, err
	}
	if choice.executor == "docker" && !f.allowDocker {
		choice.executor = "local"
	}
	names := []string{choice.executor}
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add("local")
	if f.allowDocker {
		add("docker")
	}
	for _, q := range a.queues() {
		add(q.executor)
	}
	here := f.executing
	if here == 0 {
		here = int(a.cfg.Int("concurrency"))
	}
	executing := map[string]int{}
	for _, n := range names {
		executing[n] = here
		if strings.HasPrefix(n, clusterExecutor) && f.executing == 0 {
			executing[n] = 64
		}
	}
	return names, executing, nil
}

// listen serves until the context ends, and then drains.
func (a *app) listen(ctx context.Context, f *listenFlags, srv *web.Server, q *runqueue.Queue, lock *flock.Flock, log *slog.Logger) error {
	ln, err := net.Listen("tcp", f.listen)
	if err != nil {
		return usererrf("free the address, or choose another with --listen", "cannot listen: %v", err)
	}
	scheme := "http"
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return errors.Join(usererrf("give PEM files that belong together", "the certificate cannot be used: %v", err), ln.Close())
		}
		ln, scheme = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}), "https"
	}
	url := scheme + "://" + ln.Addr().String()
	if err := os.WriteFile(lock.Path(), fmt.Appendf(nil, "process %d at %s\n", os.Getpid(), url), 0o600); err != nil {
		return errors.Join(fmt.Errorf("write lock: %w", err), ln.Close())
	}
	server := &http.Server{
		Handler: srv.Handler(), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
	}
	driven := make(chan struct{})
	go func() { defer close(driven); q.Run(ctx) }()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	if a.jsonOut {
		if err := a.printJSON(map[string]any{"url": url, "keys": f.keys}); err != nil {
			return err
		}
	} else {
		note(a.stdout, url, f.keys)
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		srv.Drain()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.drain+10*time.Second)
		defer cancel()
		if err = server.Shutdown(end); err != nil {
			err = errors.Join(err, server.Close())
		}
		<-driven
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func note(w io.Writer, url string, keys bool) {
	fmt.Fprintf(w, "serving %s\n", url)
	if keys {
		fmt.Fprintln(w, "  API keys are demanded; `repromill keys create` makes one")
	}
}
