// Package web serves the pages and the API of `repromill serve`: from a pasted
// URL to a verdict. It keeps no state but open connections; whatever it shows
// and changes is in the store and the results, so that the command line and any
// later server see the same.
//
// Pages are whole documents that need no script to be read. What a browser may
// do is bounded by headers, by the origin of every request that changes
// something, and by keys where the server listens beyond this machine.
package web

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/bundle"
	"github.com/repromill/repromill/runner/store"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// Kicker is told when there is something new to drive.
type Kicker interface{ Kick() }

// Config is what a Server works with. Store, Runner, Data, Queue, Queues, Rand
// and Secret are needed.
type Config struct {
	Store  *store.Store
	Runner *runner.Runner
	Data   *dataset.Dataset
	Queue  Kicker
	Queues []string // executors that runs may be submitted to, the default first
	Nightly

	Now     func() time.Time
	Rand    io.Reader
	Secret  []byte // signs sessions; at least 32 bytes that survive a restart
	Log     *slog.Logger
	Mirror  string // of every run; empty: the network
	Version string
	// Redact takes secrets out of bundles; nil knows the forms of tokens only.
	Redact *bundle.Redactor

	// Hosts are the names, without a port, by which browsers may reach the
	// server; nil means the names of the loopback interface.
	Hosts []string
	// Keys demands an API key for everything but the health of the server.
	Keys bool
	// TwoKeys demands that another key approves than the one that submitted.
	TwoKeys bool
	// Secure says that browsers come by https, so that cookies may demand it.
	Secure bool

	RequestsPerMinute int // of a caller whose key states none; 0 means 600
	MaxWaiting        int // submissions that wait, of all callers; 0 means 1000
	MaxWatchers       int // open event streams; 0 means 5000
}

// Server answers requests.
type Server struct {
	cfg      Config
	pages    *template.Template
	assets   map[string]asset
	limits   access.Limiter
	strange  access.Limiter // of those who show no valid key
	hub      hub
	rendered rendered
	loads    loads
	counts   counts
	metrics  metrics
	mux      *http.ServeMux
	origin   *http.CrossOriginProtection
	routes   []route
	started  time.Time
	packing  chan struct{} // one place for each bundle that is made at once
	ending   chan struct{} // closed when open streams have to end
}

type asset struct {
	body []byte
	kind string
}

// New builds a server; it listens to nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Store == nil || cfg.Runner == nil || cfg.Data == nil || cfg.Queue == nil:
		return nil, errors.New("web: incomplete configuration")
	case len(cfg.Queues) == 0:
		return nil, errors.New("web: no queue to submit to")
	case len(cfg.Secret) < 32:
		return nil, errors.New("web: the secret is shorter than 32 bytes")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Hosts == nil {
		cfg.Hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	for p, v := range map[*int]int{&cfg.RequestsPerMinute: 600, &cfg.MaxWaiting: 1000, &cfg.MaxWatchers: 5000} {
		if *p == 0 {
			*p = v
		}
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(), started: cfg.Now(), packing: make(chan struct{}, 2), ending: make(chan struct{})}
	s.hub.init(cfg.Store)
	s.metrics.init()
	if err := s.load(); err != nil {
		return nil, err
	}
	s.routes = s.api()
	s.register()
	return s, nil
}

// load reads the embedded files. The name of an asset holds its hash, so that
// it may be cached for good.
func (s *Server) load() error {
	s.assets = map[string]asset{}
	names := map[string]string{}
	app, err := assetFiles.ReadFile("assets/app.css")
	if err != nil {
		return fmt.Errorf("load assets: %w", err)
	}
	script, err := assetFiles.ReadFile("assets/app.js")
	if err != nil {
		return fmt.Errorf("load assets: %w", err)
	}
	icon, err := assetFiles.ReadFile("assets/icon.svg")
	if err != nil {
		return fmt.Errorf("load assets: %w", err)
	}
	for name, a := range map[string]asset{
		"app.css":  {append([]byte(report.StyleSheet()), app...), "text/css; charset=utf-8"},
		"app.js":   {script, "text/javascript; charset=utf-8"},
		"icon.svg": {icon, "image/svg+xml"},
	} {
		sum := sha256.Sum256(a.body)
		names[name] = "/assets/" + hex.EncodeToString(sum[:6]) + "-" + name
		s.assets[names[name]] = a
	}
	s.pages, err = template.New("").Funcs(funcs(names)).ParseFS(templateFiles, "templates/*.html")
	if err != nil {
		return fmt.Errorf("load pages: %w", err)
	}
	return nil
}

// Handler is the server for net/http.
func (s *Server) Handler() http.Handler { return s.guard(s.mux) }

// Drain ends the event streams, whose clients come back to the next server with
// the number of the last event they saw.
func (s *Server) Drain() {
	select {
	case <-s.ending:
	default:
		close(s.ending)
	}
}

func (s *Server) register() {
	page := func(pattern, scope string, h func(*call) error) { s.mux.HandleFunc(pattern, s.page(scope, h)) }
	page("GET /{$}", access.Read, s.submitPage)
	page("GET /runs", access.Read, s.runsPage)
	page("POST /runs", access.Submit, s.submitForm)
	page("GET /runs/{id}", access.Read, s.runPage)
	page("POST /runs/{id}/approve", access.Approve, s.approveForm)
	page("POST /runs/{id}/cancel", access.Submit, s.cancelForm)
	page("POST /runs/{id}/retry", access.Submit, s.retryForm)
	page("GET /runs/{id}/plan", access.Read, s.planPage)
	page("POST /runs/{id}/plan", access.Submit, s.planForm)
	page("GET /runs/{id}/plan.json", access.Read, s.planFile)
	page("GET /runs/{id}/log", access.Read, s.logPage)
	page("GET /runs/{id}/report.html", access.Read, s.reportFile)
	page("GET /runs/{id}/report.md", access.Read, s.reportFile)
	page("GET /runs/{id}/report.json", access.Read, s.reportFile)
	page("GET /runs/{id}/notebook.ipynb", access.Read, s.notebook)
	page("GET /runs/{id}/bundle.zip", access.Read, (*call).bundle)
	page("GET /runs/{id}/figures/{name...}", access.Read, s.figureFile)
	page("GET /runs/{id}/parquet", access.Read, s.parquetPage)
	page("GET /runs/{id}/parquet/{n}", access.Read, s.parquetFile)
	page("GET /compare", access.Read, s.comparePage)
	page("GET /loads", access.Read, s.loadsPage)
	page("GET /loads/{id}", access.Read, s.loadPage)
	page("GET /nightly", access.Read, s.nightlyPage)
	page("GET /skus", access.Read, s.skusPage)
	page("GET /skus/{id}", access.Read, s.skuPage)
	page("GET /audit", access.Admin, s.auditPage)
	page("GET /api", access.Read, s.apiPage)
	page("GET /login", "", s.loginPage)
	page("POST /login", "", s.loginForm)
	page("POST /logout", "", s.logoutForm)
	page("GET /{path...}", access.Read, s.targetPage)
	s.mux.HandleFunc("GET /assets/", s.assetFile)
	s.mux.HandleFunc("GET /favicon.ico", s.assetFile)
	s.mux.HandleFunc("GET /robots.txt", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "User-agent: *\nDisallow: /\n") })
	for _, r := range s.routes {
		s.mux.HandleFunc(r.method+" "+r.path, s.endpoint(r))
	}
}

// ready reports whether the store answers.
func (s *Server) ready(ctx context.Context) error {
	select {
	case <-s.ending:
		return errors.New("the server is draining")
	default:
	}
	_, err := s.cfg.Store.Waiting(ctx, 1)
	return err
}

func (s *Server) assetFile(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.body)
}
