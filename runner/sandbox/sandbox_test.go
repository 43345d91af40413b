//go:build linux

package sandbox

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__sandbox-init" {
		os.Exit(InitMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func testConfig(layer Layer) Config {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Config{Init: []string{exe, "__sandbox-init"}, Layer: layer}
}

// execute runs a command to its end and returns what it printed.
func execute(t testing.TB, cfg Config, spec Spec) (out string, res Result, p *Process) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if spec.Dir == "" {
		spec.Dir = t.TempDir()
		spec.Writable = append(spec.Writable, spec.Dir)
	}
	if spec.Scratch == "" {
		spec.Scratch = t.TempDir()
	}
	spec.Name = "test"
	spec.Stdout, spec.Stderr = w, w
	p, err = Start(cfg, spec)
	w.Close()
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	timer := time.AfterFunc(20*time.Second, p.Kill)
	b, _ := io.ReadAll(r)
	res = p.Wait()
	timer.Stop()
	return string(b), res, p
}

func TestProbe(t *testing.T) {
	start := time.Now()
	c := Probe(testConfig(Auto))
	t.Logf("%+v in %v", c, time.Since(start))
}

func TestHello(t *testing.T) {
	for _, l := range []Layer{Namespaces, Landlock, None} {
		t.Run(string(l), func(t *testing.T) {
			out, res, p := execute(t, testConfig(l), Spec{Argv: []string{"sh", "-c", "id; ls / /proc /dev /etc; env; mount 2>/dev/null | head -40; ls -la $HOME; ulimit -a; cat /proc/self/status | grep -i -E 'cap|seccomp|NoNew'"}})
			t.Logf("%+v %+v\n%s", res, p.Placement(), strings.TrimSpace(out))
		})
	}
}

func BenchmarkTrue(b *testing.B) {
	for _, l := range []Layer{Namespaces, Landlock, None} {
		b.Run(string(l), func(b *testing.B) {
			for b.Loop() {
				if _, res, _ := execute(b, testConfig(l), Spec{Argv: []string{"true"}}); res.Code != 0 {
					b.Fatalf("%+v", res)
				}
			}
		})
	}
}
