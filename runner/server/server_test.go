//go:build linux

package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/load/simserver"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "__supervise":
			syscall.Exit(SuperviseMain(args))
		case "__serve":
			syscall.Exit(serve(args))
		case "__linger":
			signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
			time.Sleep(10 * time.Minute)
			syscall.Exit(0)
		case "__parent":
			syscall.Exit(parent(args[0], args[1]))
		}
	}
	os.Exit(m.Run())
}

// serve is a model server of its own process, for tests.
func serve(args []string) int {
	fl := flag.NewFlagSet("serve", flag.ContinueOnError)
	port := fl.String("port", "", "")
	say := fl.String("print", "", "file to print first")
	quit := fl.Int("exit", -1, "end with this status, having printed")
	busy := fl.String("taken-once", "", "say that the port is taken, if this file does not exist")
	linger := fl.String("linger", "", "start a process that detaches itself and ignores signals; its pid goes to this file")
	sick := fl.Bool("sick", false, "answer 503 at /health")
	deaf := fl.Bool("deaf", false, "never listen")
	stubborn := fl.Bool("stubborn", false, "ignore SIGTERM")
	model := fl.String("model", "owner/model", "")
	if fl.Parse(args) != nil {
		return 2
	}
	if b, err := os.ReadFile(*say); err == nil {
		os.Stdout.Write(b)
	}
	if *quit >= 0 {
		return *quit
	}
	if *busy != "" {
		if _, err := os.Stat(*busy); err != nil {
			os.WriteFile(*busy, nil, 0o600)
			fmt.Println("OSError: [Errno 98] Address already in use")
			return 1
		}
	}
	if *linger != "" {
		c := exec.Command(os.Args[0], "__linger")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if c.Start() != nil {
			return 2
		}
		os.WriteFile(*linger, []byte(strconv.Itoa(c.Process.Pid)), 0o600)
	}
	if *stubborn {
		signal.Ignore(syscall.SIGTERM)
	}
	if *deaf {
		time.Sleep(10 * time.Minute)
	}
	s := simserver.New(simserver.Config{Model: *model})
	go s.Run(context.Background())
	var handler http.Handler = s
	if *sick {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "loading", http.StatusServiceUnavailable) })
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+*port)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(http.Serve(l, handler))
	return 1
}

// parent is a program that starts a server and is then killed.
func parent(dir, template string) int {
	h, err := newHost(dir, template)
	if err == nil {
		var s interface{ Endpoint() string }
		if s, err = h.Start(context.Background(), arm()); err == nil {
			srv := s.(*Server)
			fmt.Printf("up %d %d\n", srv.proc.cmd.Process.Pid, os.Getpid())
			time.Sleep(10 * time.Minute)
		}
	}
	fmt.Println(err)
	return 1
}

func arm() spec.Arm { return spec.Arm{Name: "fp8", Model: "owner/model"} }

func newHost(dir, template string, change ...func(*Config)) (*Host, error) {
	cfg := Config{Dir: dir, Self: []string{os.Args[0], "__supervise"}, How: func(spec.Arm) string { return template }, Environ: os.Environ(), Grace: 5 * time.Second, Healthy: time.Minute}
	for _, c := range change {
		c(&cfg)
	}
	return New(cfg)
}

func host(t *testing.T, flags string, change ...func(*Config)) *Host {
	t.Helper()
	h, err := newHost(t.TempDir(), quote([]string{os.Args[0]})+" __serve --port {port} --model {model} "+flags, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "*"+recordSuffix)); len(left) > 0 {
			t.Errorf("records are left: %v", left)
		}
	})
	return h
}

func start(t *testing.T, h *Host) *Server {
	t.Helper()
	s, err := h.Start(t.Context(), arm())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s.(*Server)
}

// pidIn reads a pid from a file that is being written.
func pidIn(t *testing.T, path string) int {
	t.Helper()
	pid := 0
	eventually(t, "a pid in "+path, func() bool {
		b, _ := os.ReadFile(path)
		pid, _ = strconv.Atoi(string(b))
		return pid > 0
	})
	return pid
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("there is never " + what)
}

func TestStartStop(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pid")
	h := host(t, "--print testdata/logs/vllm-0.11-nvfp4-marlin-hopper.log --linger "+pids, func(c *Config) { c.Environ = append(c.Environ, "PWD="+cwd(t)) })
	s := start(t, h)
	linger := pidIn(t, pids)
	id, err := s.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if id.Model != "owner/model" || id.Kernel != "marlin+Flash Attention" || id.StartTime.IsZero() {
		t.Errorf("%+v", id)
	}
	if f := s.Facts(); f.Version != "0.11.0" || f.ReadyS <= 0 || f.Log == "" || f.KVTokens != 520272 {
		t.Errorf("%+v", f)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(linger) {
		t.Error("a process that the server started outlives it")
	}
	if conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.Endpoint(), "http://"), "/v1")); err == nil {
		conn.Close()
		t.Error("the server listens after Stop")
	}
	if _, err := s.Identity(t.Context()); err == nil || !strings.Contains(err.Error(), "ended while it was needed") {
		t.Errorf("identity of a server that was stopped: %v", err)
	}
}

func cwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRestart(t *testing.T) {
	s := start(t, host(t, ""))
	before, err := s.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	url, log := s.Endpoint(), s.Facts().Log
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := s.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !after.StartTime.After(before.StartTime) || after.Since(before).Material {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if s.Endpoint() != url {
		t.Errorf("the endpoint moved from %s to %s though its port was free", url, s.Endpoint())
	}
	if s.Facts().Log == log {
		t.Error("both starts share a log")
	}
}

// TestStubborn: a server that ignores the order to end is killed.
func TestStubborn(t *testing.T) {
	s := start(t, host(t, "--stubborn", func(c *Config) { c.Grace = 200 * time.Millisecond }))
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDiesWhileLoading(t *testing.T) {
	h := host(t, "--print testdata/failures/vllm-oom.log --exit 1", func(c *Config) { c.Environ = append(c.Environ, "PWD="+cwd(t)) })
	_, err := h.Start(t.Context(), arm())
	var e *StartError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	for _, want := range []string{"arm fp8 ended after", "exit status 1", "the GPU's memory does not suffice", "| torch.OutOfMemoryError", "its log is "} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("no %q in %v", want, e)
		}
	}
	if !strings.Contains(e.UserError(), "--tensor-parallel-size") {
		t.Error(e.UserError())
	}
}

func TestNeverHealthy(t *testing.T) {
	for flags, want := range map[string]string{"--sick": "/health says 503", "--deaf": "does not listen"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			pids := filepath.Join(t.TempDir(), "pid")
			h := host(t, flags+" --linger "+pids, func(c *Config) { c.Healthy = 1500 * time.Millisecond })
			_, err := h.Start(t.Context(), arm())
			if err == nil || !strings.Contains(err.Error(), "did not become healthy within 1.5s") || !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
			if alive(pidIn(t, pids)) {
				t.Error("something is left")
			}
		})
	}
}

func TestPortTakenIsTriedAgain(t *testing.T) {
	start(t, host(t, "--taken-once "+filepath.Join(t.TempDir(), "once")))
}

func TestCancelWhileWaiting(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pid")
	h := host(t, "--deaf --linger "+pids)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		pidIn(t, pids)
		cancel()
	}()
	if _, err := h.Start(ctx, arm()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if alive(pidIn(t, pids)) {
		t.Error("something is left")
	}
}

func TestNoProgram(t *testing.T) {
	h, err := newHost(t.TempDir(), "no-such-program-1 {port}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Start(t.Context(), arm())
	var user *UserError
	if !errors.As(err, &user) || !strings.Contains(user.Msg, "no-such-program-1 is not in PATH") {
		t.Errorf("%v", err)
	}
}

// TestSupervisorIsKilled: what a dead supervisor leaves is cleared up at once.
func TestSupervisorIsKilled(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pid")
	s := start(t, host(t, "--linger "+pids))
	linger := pidIn(t, pids)
	if err := syscall.Kill(s.proc.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an end", func() bool { _, over := s.proc.ended(); return over })
	if alive(linger) {
		t.Error("a process of the server outlives its supervisor")
	}
	if _, err := s.Identity(t.Context()); err == nil || !strings.Contains(err.Error(), "supervisor was killed") {
		t.Errorf("%v", err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Errorf("restart after the end: %v", err)
	}
}

// orphans starts a program that starts a server, and returns the pids of the
// supervisor, of the program, and of what the server started.
func orphans(t *testing.T, dir string) (supervisor, program, linger int) {
	t.Helper()
	pids := filepath.Join(dir, "pid")
	cmd := exec.Command(os.Args[0], "__parent", dir, quote([]string{os.Args[0]})+" __serve --port {port} --linger "+pids)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := fmt.Fscanf(out, "up %d %d\n", &supervisor, &program); err != nil {
		t.Fatal(err)
	}
	return supervisor, program, pidIn(t, pids)
}

// TestParentIsKilled: kill -9 of whoever started a server ends the server.
func TestParentIsKilled(t *testing.T) {
	dir := t.TempDir()
	supervisor, program, linger := orphans(t, dir)
	if err := syscall.Kill(program, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an end of the supervisor", func() bool { return !alive(supervisor) })
	if alive(linger) {
		t.Error("a process of the server outlives everybody")
	}
}

// TestBothAreKilled: when nobody is left to clear up, the next start does.
func TestBothAreKilled(t *testing.T) {
	dir := t.TempDir()
	supervisor, program, linger := orphans(t, dir)
	for _, pid := range []int{supervisor, program} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range []int{supervisor, program} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "an end of both", func() bool { return !alive(supervisor) && !alive(program) })
	if !alive(linger) {
		t.Fatal("nothing is left, so the test tests nothing")
	}
	h, err := newHost(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	arms, err := h.Sweep(t.Context())
	if err != nil || len(arms) != 1 || arms[0] != "fp8" {
		t.Errorf("%v, %v", arms, err)
	}
	if alive(linger) {
		t.Error("the sweep left something")
	}
	if arms, err := h.Sweep(t.Context()); err != nil || len(arms) != 0 {
		t.Errorf("a second sweep finds %v, %v", arms, err)
	}
}

// TestSweepLeavesTheLiving: another program's server is not touched.
func TestSweepLeavesTheLiving(t *testing.T) {
	h := host(t, "")
	s := start(t, h)
	other, err := newHost(h.cfg.Dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if arms, err := other.Sweep(t.Context()); err != nil || len(arms) > 0 {
		t.Errorf("%v, %v", arms, err)
	}
	if _, err := s.Identity(t.Context()); err != nil {
		t.Error(err)
	}
}
