package executortest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
)

func success(t *testing.T, b *bench) {
	a := b.attempt(t, "hello", "one two", `"quoted" $HOME`)
	a.Env = map[string]string{"GREETING": "grüß dich", "EMPTY": ""}
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	got := content(t, a.Dir, "hello.txt")
	for _, want := range []string{"arg one two\n", "arg \"quoted\" $HOME\n", "cwd " + a.Dir + "\n", "env GREETING=grüß dich\n", "env EMPTY=\n", "stdin 0 EOF\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the program did not see %q; it saw:\n%s", want, got)
		}
	}
	for _, l := range lines(got) {
		name, _, _ := strings.Cut(strings.TrimPrefix(l, "env "), "=")
		if strings.HasPrefix(l, "env ") && !slices.Contains([]string{"PATH", "HOME", "TMPDIR", "LANG", "GREETING", "EMPTY"}, name) {
			t.Errorf("the program saw a variable that nobody gave it: %s", l)
		}
	}
	if !strings.Contains(out, "to stdout\n") || !strings.Contains(out, "to stderr\n") {
		t.Errorf("output is %q, want both streams", out)
	}
	if st.ExitCode != 0 || st.Started.IsZero() || st.Finished.Before(st.Started) || st.Since.IsZero() {
		t.Errorf("times are wrong: %+v", st)
	}
	if st.Usage.WallSeconds <= 0 || st.Usage.MaxRSSBytes <= 0 || st.Usage.OutputBytes != int64(len(out)) {
		t.Errorf("usage is %+v with %d bytes of output", st.Usage, len(out))
	}
	if len(st.Placement.Sandbox) == 0 {
		t.Error("the placement does not say what isolates")
	}
	if st.Stdout != "" && content(t, st.Stdout) != "to stdout\n" {
		t.Errorf("stdout holds %q", content(t, st.Stdout))
	}
}

func exitCode(t *testing.T, b *bench) {
	st, out := b.finish(t, b.attempt(t, "exit", "7"))
	expect(t, st, out, runner.Failed, runner.ReasonExit)
	if st.ExitCode != 7 {
		t.Errorf("exit code is %d, want 7", st.ExitCode)
	}
}

func signalled(t *testing.T, b *bench) {
	st, out := b.finish(t, b.attempt(t, "signal"))
	expect(t, st, out, runner.Failed, runner.ReasonSignal)
}

func cannotStart(t *testing.T, b *bench) {
	a := b.attempt(t)
	a.Argv = []string{"no-such-program-anywhere"}
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Failed, runner.ReasonStart)
	if !strings.Contains(st.Message, "no-such-program-anywhere") {
		t.Errorf("the message does not name the program: %s", st.Message)
	}
}

func timeout(t *testing.T, b *bench) {
	a := b.attempt(t, "hide", "beat")
	a.Limits.Wall = time.Second
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Failed, runner.ReasonTimeout)
	still(t, a.Dir, "beat")
}

func outputFlood(t *testing.T, b *bench) {
	a := b.attempt(t, "flood")
	a.Limits.OutputBytes = 100_000
	st, out := b.finish(t, a)
	if len(out) > 100_000 {
		t.Errorf("%d bytes were kept of 100000", len(out))
	}
	expect(t, st, out[:min(len(out), 100)], runner.Failed, runner.ReasonOutputLimit)
}

func forkBomb(t *testing.T, b *bench) {
	a := b.attempt(t, "bomb", "beat", "first")
	a.Limits.Processes = 60
	a.Limits.Wall = 2 * bombTime
	bounded := !slices.Contains(b.Unbounded, "processes")
	if !bounded {
		a.Limits.Wall = 3 * time.Second
	}
	st, out := b.finish(t, a)
	if bounded {
		expect(t, st, out[:min(len(out), 2000)], runner.Failed, runner.ReasonResource)
	}
	still(t, a.Dir, "beat")
}

func memoryHog(t *testing.T, b *bench) {
	a := b.attempt(t, "hog")
	a.Limits.MemoryBytes = 200 << 20
	a.Limits.Wall = time.Minute
	st, out := b.finish(t, a)
	if !slices.Contains(b.Unbounded, "memory") {
		expect(t, st, out, runner.Failed, runner.ReasonResource)
	}
}

func fileSize(t *testing.T, b *bench) {
	a := b.attempt(t, "bigfile", "big")
	a.Limits.FileBytes = 1 << 20
	st, out := b.finish(t, a)
	// A program may ignore the signal and end by itself.
	if st.Phase != runner.Failed {
		t.Errorf("ended %s (%s); output:\n%s", st.Phase, st.Reason, out)
	}
	if n := len(content(t, a.Dir, "big")); n > 1<<20 {
		t.Errorf("the file has %d bytes, the limit is %d", n, 1<<20)
	}
}

// leftBehind: a command that ends takes what it started along.
func leftBehind(t *testing.T, b *bench) {
	a := b.attempt(t, "leave", "beat")
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	still(t, a.Dir, "beat")
}

const secretEnv = "REPROMILL_CONFORMANCE_SECRET"

func secrets(t *testing.T, b *bench) {
	if b.NoSandbox {
		return
	}
	token := fmt.Sprintf("s3cr3t-%d-%d", os.Getpid(), time.Now().UnixNano())
	// Not t.Setenv, which parallel tests may not use.
	name := fmt.Sprintf("%s_%d", secretEnv, serial.Add(1))
	os.Setenv(name, token)
	t.Cleanup(func() { os.Unsetenv(name) })
	// /proc shows the environment that a process was started with, so another
	// process of this user is what has to stay out of sight.
	neighbour := exec.Command("sleep", "60")
	if err := neighbour.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		neighbour.Process.Kill()
		neighbour.Wait()
	})
	vault := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(vault, []byte(token), 0o644); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(vault); filepath.Dir(d) != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755) // what keeps the file out of reach must not be its folder's mode
	}
	// A descriptor that a child would inherit.
	fd, err := syscall.Open(vault, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	a := b.attempt(t, "snoop", token[len("s3cr3t-"):], vault, strconv.Itoa(neighbour.Process.Pid))
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	for _, l := range lines(out) {
		if strings.HasPrefix(l, "LEAK") {
			t.Error(l)
		}
	}
	if !strings.Contains(out, "snooped everywhere") {
		t.Errorf("the program did not get through:\n%s", out)
	}
}

// network: without hosts nothing is reached, neither this machine nor the
// address at which clouds hand out credentials.
func network(t *testing.T, b *bench) {
	if b.NoSandbox {
		return
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	var reached atomic.Int64
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			c.Close()
		}
	}()
	go func() {
		var buf [100]byte
		for {
			if _, _, err := udp.ReadFrom(buf[:]); err != nil {
				return
			}
			reached.Add(1)
		}
	}()
	st, out := b.finish(t, b.attempt(t, "dial", tcp.Addr().String(), udp.LocalAddr().String(), "169.254.169.254:80"))
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	if reached.Load() != 0 || strings.Contains(out, "REACHED") {
		t.Errorf("the network was reached (%d times from here):\n%s", reached.Load(), out)
	}
}

// proxyRefuses: with hosts, the proxy lets through what is listed, which never
// includes an address of this machine that only a plan has named.
func proxyRefuses(t *testing.T, b *bench) {
	if b.NoSandbox {
		return
	}
	var reached atomic.Int64
	srv := http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	a := b.attempt(t, "get", "http://"+addr+"/", "http://localhost:"+port+"/", "http://not-listed.example:80/", "http://169.254.169.254/latest/meta-data/")
	a.Network.Hosts = []string{addr, "localhost:" + port, "169.254.169.254:80"}
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	if reached.Load() != 0 {
		t.Errorf("a private address was reached %d times:\n%s", reached.Load(), out)
	}
	if got := strings.Count(out, "status 403"); got != 4 {
		t.Errorf("%d of 4 requests were refused by the proxy:\n%s", got, out)
	}
	still := b.attempt(t, "dial", addr, addr, "169.254.169.254:80")
	still.Network.Hosts = a.Network.Hosts
	st, out = b.finish(t, still)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	if reached.Load() != 0 || strings.Contains(out, "REACHED") {
		t.Errorf("the way around the proxy is open:\n%s", out)
	}
}

func writeOutside(t *testing.T, b *bench) {
	if b.NoSandbox {
		return
	}
	outside, readOnly := b.Folder(t, "outside"), b.Folder(t, "read only")
	for _, p := range []string{filepath.Join(readOnly, "data"), filepath.Join(outside, "data")} {
		if err := os.WriteFile(p, []byte("data"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	a := b.attempt(t, "trespass", outside, filepath.Join(outside, "data"), readOnly, filepath.Join(readOnly, "data"), "/", "/usr", "/usr/bin", "/etc", "/etc/passwd")
	a.ReadOnly = append(slices.Clone(a.ReadOnly), readOnly)
	if err := os.Symlink(outside, filepath.Join(a.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	a.Argv = append(a.Argv, filepath.Join(a.Dir, "link"))
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	if strings.Contains(out, "TRESPASS") || strings.Count(out, "data is readable") != 1 {
		t.Errorf("the read-only path must be readable, and none of these writable:\n%s", out)
	}
	// The same program finds what it may write, so its silence means something.
	own := b.attempt(t, "trespass")
	own.Argv = append(own.Argv, own.Dir)
	if _, out := b.finish(t, own); !strings.Contains(out, "TRESPASS "+own.Dir) {
		t.Errorf("the writable folder cannot be written:\n%s", out)
	}
}

// plantedLink: what an earlier attempt left in a writable folder does not
// widen what the next one may use.
func plantedLink(t *testing.T, b *bench) {
	if b.NoSandbox {
		return
	}
	outside := b.Folder(t, "outside")
	if err := os.WriteFile(filepath.Join(outside, "token"), []byte("s3cr3t"), 0o644); err != nil {
		t.Fatal(err)
	}
	a := b.attempt(t, "snoop", "none", filepath.Join("planted", "token"), "1")
	if err := os.Symlink(outside, filepath.Join(a.Dir, "planted")); err != nil {
		t.Fatal(err)
	}
	a.Writable = append(a.Writable, filepath.Join(a.Dir, "planted"))
	h, err := b.Executor.Submit(t.Context(), a)
	if err != nil {
		return // refusing it is as good
	}
	st := b.wait(t, h)
	if out := b.output(t, h); strings.Contains(out, "LEAK") {
		t.Errorf("ended %s, and the link was followed:\n%s", st.Phase, out)
	}
}

func oddNames(t *testing.T, b *bench) {
	a := b.attempt(t)
	dir := b.Folder(t, "späce and 'quote' $x 数据")
	a.Dir, a.Writable = dir, []string{dir}
	a.Argv = append(slices.Clone(b.Program), "hello", "new\nline", "-rf *", "")
	st, out := b.finish(t, a)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	got := content(t, dir, "hello.txt")
	for _, want := range []string{"arg new\nline\n", "arg -rf *\n", "arg \n", "cwd " + dir + "\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the program did not see %q; it saw:\n%s", want, got)
		}
	}
}

func unknownHandle(t *testing.T, b *bench) {
	for _, h := range []runner.Handle{"", "0123456789abcdef", "../../etc", "no such handle"} {
		if st, err := b.Executor.Observe(t.Context(), h); err == nil {
			t.Errorf("observing %q gave %+v and no error", h, st)
		}
		if err := b.Executor.Cancel(t.Context(), h); err == nil {
			t.Errorf("cancelling %q gave no error", h)
		}
	}
}

// badAttempt: what could never run is refused with the fix, and nothing is left behind.
func badAttempt(t *testing.T, b *bench) {
	ok := b.attempt(t, "exit", "0")
	for name, spoil := range map[string]func(*runner.Attempt){
		"no command":         func(a *runner.Attempt) { a.Argv = nil },
		"NUL in an argument": func(a *runner.Attempt) { a.Argv = append(slices.Clone(a.Argv), "a\x00b") },
		"= in a variable":    func(a *runner.Attempt) { a.Env = map[string]string{"A=B": "c"} },
		"relative folder":    func(a *runner.Attempt) { a.Writable = []string{"relative"} },
		"missing folder":     func(a *runner.Attempt) { a.Writable = append(slices.Clone(a.Writable), a.Dir+"/missing") },
		"the whole machine":  func(a *runner.Attempt) { a.Writable = []string{"/"} },
	} {
		a := ok
		spoil(&a)
		if _, err := b.Executor.Submit(t.Context(), a); err == nil {
			t.Errorf("%s: no error", name)
		} else if _, isUser := asUserError(err); !isUser {
			t.Errorf("%s: %v does not say what to do", name, err)
		}
	}
	// The key is not burnt by the refusals.
	st, out := b.finish(t, ok)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late := b.attempt(t, "exit", "0")
	if h, err := b.Executor.Submit(ctx, late); err == nil {
		b.wait(t, h)
	}
	st, out = b.finish(t, late)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
}
