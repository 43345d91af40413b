package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/runner/capture"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/pip"
	"github.com/repromill/repromill/runner/sandbox/proxy"
)

// confined runs the build script without a network of its own: the only way
// out is our proxy, which lets the package indexes pass and nothing else. Our
// supervisor is its first process and holds the limits that the engine does
// not have: time, output and disk.
func (j *job) confined(ctx context.Context, c engine.Container, log io.Writer) (outcome, error) {
	b := j.b
	for _, d := range []string{"out", "home"} {
		discard(filepath.Join(j.dir, d)) // of the try before
		if err := own(os.Mkdir, filepath.Join(j.dir, d)); err != nil {
			return outcome{}, err
		}
	}
	way, err := j.openWay()
	if err != nil {
		return outcome{}, err
	}
	defer way.close()
	spec, err := json.Marshal(supervisor.Spec{
		Argv: c.Entrypoint, Dir: c.Dir, Writable: []string{EnvPath, PythonPath, "/tmp"}, Proxy: true,
		Wall: b.cfg.Limits.Wall, OutputBytes: b.cfg.Limits.LogBytes, DiskBytes: b.cfg.Limits.DiskBytes, Processes: int(b.cfg.Limits.Processes),
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(j.set, "spec.json"), spec, 0o644)
	}
	if err != nil {
		return outcome{}, fmt.Errorf("write build settings: %w", err)
	}
	c.Entrypoint, c.Dir, c.Network, c.NoLog = append([]string{supervisor.InitPath}, b.cfg.ProgramArgs...), "/", "none", true
	c.Mounts = append(c.Mounts,
		engine.Mount{Source: b.cfg.Program, Target: supervisor.InitPath, ReadOnly: true},
		engine.Mount{Source: filepath.Join(j.set, "spec.json"), Target: supervisor.SpecPath, ReadOnly: true},
		engine.Mount{Source: way.dir, Target: supervisor.NetDir, ReadOnly: true},
		engine.Mount{Source: filepath.Join(j.dir, "out"), Target: supervisor.OutDir},
		engine.Mount{Source: filepath.Join(j.dir, "home"), Target: supervisor.HomeDir})
	var said strings.Builder // of the supervisor itself, which is silent when all is well
	followed := make(chan error, 1)
	done := make(chan struct{})
	go func() { followed <- follow(filepath.Join(j.dir, "out", capture.Output), log, done) }()
	out, err := b.run(ctx, c, &said)
	close(done)
	if err = errors.Join(err, <-followed); err != nil {
		return out, err
	}
	return j.verdict(out)
}

// verdict reads how the supervisor says that the script ended.
func (j *job) verdict(out outcome) (outcome, error) {
	f, err := os.Open(filepath.Join(j.dir, "out", supervisor.ExitFile))
	if err != nil {
		return out, fmt.Errorf("run build: the container ended with code %d and left no word", out.code)
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return out, fmt.Errorf("run build: %w", err)
	}
	e, err := supervisor.DecodeExit(body)
	if err != nil {
		return out, fmt.Errorf("run build: %w", err)
	}
	if e.StartError != "" {
		return out, fmt.Errorf("run build: %s", e.StartError)
	}
	out.code = e.Code
	if e.Signal != 0 {
		out.code = 128 + e.Signal
	}
	switch e.Cause {
	case supervisor.Timeout:
		out.timeout = true
	case supervisor.Output:
		out.flood = true
	case supervisor.Memory:
		out.oom = true
	case supervisor.Disk:
		out.disk = true
	case supervisor.DiskFull:
		return out, fmt.Errorf("install packages: %w", unix.ENOSPC)
	case supervisor.LostProxy:
		return out, errors.New("run build: its way to the package index broke")
	}
	return out, nil
}

// way is the proxy of one try.
type way struct {
	dir   string
	proxy *proxy.Proxy
	leash net.Listener
}

func (w *way) close() {
	_ = w.leash.Close()
	_ = w.proxy.Close()
}

// openWay serves the proxy's sockets in the settings' folder, whose name is
// short enough for unix(7).
func (j *job) openWay() (*way, error) {
	dir := filepath.Join(j.set, "net")
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("open the way out: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the way out: %w", err)
	}
	listen := func(name string) (net.Listener, error) {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err == nil {
			err = os.Chmod(filepath.Join(dir, name), 0o666)
		}
		if err != nil {
			return nil, fmt.Errorf("open the way out: %w", err)
		}
		return l, nil
	}
	sock, err := listen(supervisor.ProxySocket)
	if err != nil {
		return nil, err
	}
	leash, err := listen(supervisor.LeashSocket)
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	go func() { // connections are held until the listener's process ends them
		var held []net.Conn
		defer func() {
			for _, c := range held {
				c.Close()
			}
		}()
		for {
			c, err := leash.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
		}
	}()
	allow, private := j.hosts()
	log := &refusals{to: j.log}
	cfg := proxy.Config{Allow: allow, AllowPrivate: private, Log: log.add, MaxConns: 256}
	if x := &j.b.cfg.Index; x.Proxy != "" {
		cfg.Upstream = (&httpproxy.Config{HTTPProxy: x.Proxy, HTTPSProxy: x.Proxy, NoProxy: x.NoProxy}).ProxyFunc()
	}
	return &way{dir, proxy.Serve(sock, cfg), leash}, nil
}

// refusals notes in the build log what the proxy did not let pass.
type refusals struct {
	mu   sync.Mutex
	to   io.Writer
	seen map[string]bool
}

func (r *refusals) add(rec proxy.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Allowed || r.seen[rec.Host] {
		return
	}
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	r.seen[rec.Host] = true
	fmt.Fprintf(r.to, "::repromill:: refused %s: %s\n", rec.Host, rec.Why)
}

var urlRE = regexp.MustCompile(`https?://[^\s'";#]+`)

// elsewhere are further hosts that a known one sends its visitors to.
var elsewhere = map[string][]string{
	"github.com":           {"codeload.github.com:443", "objects.githubusercontent.com:443", "release-assets.githubusercontent.com:443", "raw.githubusercontent.com:443"},
	"download.pytorch.org": {"download-r2.pytorch.org:443"},
}

// hosts are the host:port pairs that a build may reach: its indexes, and the
// places that a requirement names itself. Only the site's own may lie at a
// private address.
func (j *job) hosts() (allow, private []string) {
	index, extra, find, _ := j.b.indexes(j.r, j.st)
	add := func(list *[]string, s string) {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return
		}
		*list = append(*list, pip.Hosts(u)...)
		*list = append(*list, elsewhere[u.Hostname()]...)
	}
	for _, s := range append([]string{index.String(), j.b.cfg.Index.Torch, j.b.cfg.Index.Python, j.b.cfg.Index.Conda}, j.b.cfg.Index.Extra...) {
		add(&private, s)
	}
	private = append(private, j.b.cfg.Index.Hosts...)
	allow = slices.Clone(private)
	for _, s := range append(extra, find...) {
		add(&allow, s)
	}
	for _, l := range j.r.inputs.Lines {
		for _, s := range urlRE.FindAllString(l.Text, -1) {
			add(&allow, s)
		}
	}
	if c := j.r.inputs.Conda; c != nil {
		for _, ch := range j.b.channels(c) {
			add(&allow, ch.url)
		}
	}
	if j.r.backend != "" {
		add(&allow, "https://download.pytorch.org")
	}
	if j.st.from == fromUV {
		add(&allow, "https://github.com")
	}
	return allow, private
}

// follow copies a file that grows until done is closed and its end is reached.
func follow(path string, to io.Writer, done <-chan struct{}) error {
	var f *os.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	for last := false; ; {
		if f == nil {
			f, _ = os.Open(path) // not there yet
		}
		if f != nil {
			if _, err := io.Copy(to, f); err != nil {
				return fmt.Errorf("follow build: %w", err)
			}
		}
		if last {
			return nil
		}
		select {
		case <-done:
			last = true
		case <-time.After(100 * time.Millisecond):
		}
	}
}
