package harness_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/harness"
)

// TestMain serves as a null server in a process of its own when it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv("HARNESS_TEST_SERVER") != "" {
		s := endpointtest.New(endpointtest.Config{Model: "m", Started: time.Now(), Answer: func(endpointtest.Asked) endpointtest.Reply { return endpointtest.Reply{Text: "yes"} }})
		os.Stdout.WriteString(s.URL + "\n")
		os.Stdin.Read(make([]byte, 1)) // until the parent ends
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// other starts a server in another process.
func other(b *testing.B) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HARNESS_TEST_SERVER=1", "GOMAXPROCS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(line[:n]))
}

// BenchmarkHarness measures short requests to a server that answers at once, in a
// process of its own, with the harness on one core; answers are synced to disk.
// cpu-req/s is what the harness's own CPU time would allow.
func BenchmarkHarness(b *testing.B) {
	url := other(b)
	runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(runtime.NumCPU())
	for _, whole := range []bool{true, false} {
		b.Run("whole="+strconv.FormatBool(whole), func(b *testing.B) {
			const questions = 10_000
			var seconds, cpu float64
			for range b.N {
				c := harness.Config{Name: "toy", Suite: toy{questions}, Dir: b.TempDir(), Seed: 1, Gate: endpoint.GateConfig{Max: 64},
					Terms: harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.0001, Alpha: 1e-9}}}
				for _, name := range []string{"a", "b"} {
					cl, err := endpoint.New(endpoint.Config{URL: url, Whole: whole})
					if err != nil {
						b.Fatal(err)
					}
					defer cl.Close()
					c.Arms = append(c.Arms, harness.Arm{Name: name, Server: cl})
				}
				start, used := time.Now(), cpuSeconds()
				res, err := harness.Run(b.Context(), c)
				if err != nil || res.Used != questions {
					b.Fatal(res.Used, err)
				}
				seconds += time.Since(start).Seconds()
				cpu += cpuSeconds() - used
			}
			n := float64(2 * questions * b.N)
			b.ReportMetric(n/seconds, "req/s")
			b.ReportMetric(n/cpu, "cpu-req/s")
			b.ReportMetric(peakMiB(), "peak-MiB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peakMiB is the largest resident size of this process so far, where the system
// tells.
func peakMiB() float64 {
	status, err := os.ReadFile(filepath.Join("/proc/self/status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	v, _ := strconv.ParseFloat(kib, 64)
	return v / 1024
}
