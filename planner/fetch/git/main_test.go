package git

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// programs are further ones, of one system only.
var programs = map[string]func(args []string) int{}

// The test binary plays the programs that the package needs: the child, and
// other processes that share a cache.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__gitfetch":
			os.Exit(ChildMain(context.Background(), os.Stdin, os.Stdout))
		case "__checkout":
			os.Exit(otherProcess(os.Args[2]))
		}
		if f, ok := programs[os.Args[1]]; ok {
			os.Exit(f(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// job for otherProcess.
type otherJob struct {
	Cache, Mirror, Repo, Ref, Host string
	StopAt                         string // hook point at which to report and wait to be killed
	Child                          bool
}

// otherProcess checks out once, prints the result as JSON, and exits.
func otherProcess(arg string) int {
	var o otherJob
	if err := json.Unmarshal([]byte(arg), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cfg := Config{CacheDir: o.Cache, AllowHTTPHosts: []string{o.Host}}
	if o.Child {
		cfg.Child = childCommand()
	}
	cfg.Hook = func(point string) {
		if o.StopAt != "" && strings.HasPrefix(point, o.StopAt) {
			fmt.Println("stopped at", point)
			select {}
		}
	}
	cfg.Progress = func(p Progress) {
		if o.StopAt == "phase:"+p.Phase {
			fmt.Println("stopped at", p.Phase)
			select {}
		}
	}
	c, err := New(cfg)
	if err == nil {
		if o.Mirror != "" {
			_, err = c.AddToMirror(context.Background(), o.Mirror, Request{Repo: o.Repo, Ref: o.Ref})
		} else {
			var co *Checkout
			if co, err = c.Checkout(context.Background(), Request{Repo: o.Repo, Ref: o.Ref}); err == nil {
				err = json.NewEncoder(os.Stdout).Encode(co)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childCommand() []string { return []string{os.Args[0], "__gitfetch"} }

// modes runs a test with the clone in this process and in a child.
func modes(t *testing.T, f func(t *testing.T, child []string)) {
	t.Run("here", func(t *testing.T) { f(t, nil) })
	t.Run("child", func(t *testing.T) { f(t, childCommand()) })
}

// repo is a repository made with the real git.
type repo struct {
	t   testing.TB
	dir string
}

func gitEnv() []string {
	return append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=2024-05-06T07:08:09Z",
		"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=2024-05-06T07:08:09Z",
		"GIT_ALLOW_PROTOCOL=file:http", "GIT_TERMINAL_PROMPT=0")
}

func newRepo(t testing.TB, dir string) *repo {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &repo{t, dir}
	r.git("init", "-q", "-b", "main", ".")
	return r
}

func (r *repo) git(args ...string) string { r.t.Helper(); return r.gitIn("", args...) }

func (r *repo) gitIn(stdin string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = r.dir, gitEnv()
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, complaint.String())
	}
	return strings.TrimSpace(out.String())
}

func (r *repo) write(path, text string) {
	r.t.Helper()
	p := filepath.Join(r.dir, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// commit records everything and returns the commit's id.
func (r *repo) commit(message string) string {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", message)
	return r.git("rev-parse", "HEAD")
}

// server speaks smart HTTP through the real git http-backend.
type server struct {
	*httptest.Server
	root string

	mu       sync.Mutex
	requests []*http.Request
	wrap     func(http.Handler) http.Handler
}

func newServer(t testing.TB) *server {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatalf("git is needed for these tests: %v", err)
	}
	s := &server{root: t.TempDir()}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + s.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		Stderr: io.Discard,
		Logger: log.New(io.Discard, "", 0),
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Clone(context.Background()))
		var h http.Handler = backend
		if s.wrap != nil {
			h = s.wrap(h)
		}
		s.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) repo(t testing.TB, name string) *repo {
	return newRepo(t, filepath.Join(s.root, name))
}

func (s *server) setWrap(f func(http.Handler) http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrap = f
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func (s *server) host() string { return strings.TrimPrefix(s.URL, "http://") }

func (s *server) config(t testing.TB, child []string) Config {
	return Config{CacheDir: t.TempDir(), AllowHTTPHosts: []string{s.host()}, Child: child,
		Sleep: noSleep}
}

func newCloner(t testing.TB, cfg Config) *Cloner {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func checkout(t testing.TB, c *Cloner, req Request) *Checkout {
	t.Helper()
	co, err := c.Checkout(t.Context(), req)
	if err != nil {
		t.Fatalf("checkout %+v: %v", req, err)
	}
	return co
}

func content(t testing.TB, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nothingStaged fails if a checkout left anything but finished ones behind.
func nothingStaged(t testing.TB, cache string) {
	t.Helper()
	left, _ := os.ReadDir(filepath.Join(cache, "git", "tmp"))
	for _, e := range left {
		t.Errorf("left behind: %s", e.Name())
	}
}

// noise is text of n bytes that does not compress, the same every time.
func noise(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

func noSleep(context.Context, time.Duration) error { return nil }

// brief is what a failure needs to show of a checkout.
func brief(co *Checkout) string {
	return fmt.Sprintf("%s at %q is %s, %d files, plain %v, dirty %v, cached %v",
		co.Repo, co.Ref, co.Commit, co.Files, co.Plain, co.Dirty, co.FromCache)
}
