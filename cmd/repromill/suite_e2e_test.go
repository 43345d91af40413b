//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/endpoint/endpointtest"
)

// twoArms is a place with a mirror of two models and a data set, and two servers
// whose answers differ by a known amount.
type twoArms struct {
	*bench
	fp8, nvfp4 *endpointtest.Server
	args       []string
}

func newTwoArms(t *testing.T, bin string, questions int, fp8, nvfp4 *endpointtest.Server, extra ...string) *twoArms {
	t.Helper()
	b := &twoArms{bench: newBench(t, bin), fp8: fp8, nvfp4: nvfp4}
	mirror := filepath.Join(b.dir, "mirror")
	if err := modelMirror(mirror, questions); err != nil {
		t.Fatal(err)
	}
	b.args = append([]string{"--mirror", mirror, "run", "org/tiny-NVFP4", "--baseline", "org/tiny-FP8", "--suites", "mmlu-pro", "--margin", "5pt", "--max-tokens", "256",
		"--endpoint", "nvfp4=" + nvfp4.URL, "--endpoint", "fp8=" + fp8.URL, "--yes", "--quiet", "--key", "two-arms"}, extra...)
	return b
}

// samples is what the run committed, without when and by what request it came.
func (b *twoArms) samples(t *testing.T) (lines []string, verdict string, paid map[string]int) {
	t.Helper()
	for _, x := range samplesIn(t, b.dir) {
		lines = append(lines, fmt.Sprintln(x.Arm, x.ItemID, x.Repeat, x.OutputSHA, x.Outcome, x.Score, x.Position, x.Rule))
	}
	slices.Sort(lines)
	var list []struct {
		RunID string `json:"run_id"`
	}
	if err := json.Unmarshal([]byte(b.output("results", "list", "--json")), &list); err != nil || len(list) != 1 {
		t.Fatalf("%d runs: %v", len(list), err)
	}
	var out struct {
		Verdict string `json:"verdict"`
		Suites  []struct {
			Result struct {
				Paid        map[string]float64 `json:"paid"`
				Comparisons json.RawMessage    `json:"comparisons"`
			} `json:"result"`
		} `json:"suites"`
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "data", "repromill", "_runs", list[0].RunID, "outcome.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil || len(out.Suites) != 1 {
		t.Fatalf("%v in %s", err, text)
	}
	paid = map[string]int{}
	for k, v := range out.Suites[0].Result.Paid {
		paid[k] = int(v)
	}
	return lines, out.Verdict + " " + string(out.Suites[0].Result.Comparisons), paid
}

// TestKillSuites runs two arms that differ by a known amount, killed ten times and
// taken up again: the same answers, the same verdict, and no request paid twice
// but those in flight at a kill, which are counted.
func TestKillSuites(t *testing.T) {
	bin := buildOnce(t)
	for _, c := range []struct {
		name      string
		questions int
		right     [2]float64
		verdict   string
		stops     bool
	}{{"whole", 240, [2]float64{0.8, 0.78}, "", false}, {"early", 1500, [2]float64{0.9, 0.55}, "worse", true}} {
		t.Run(c.name, func(t *testing.T) {
			serve := func(salt string, right float64, name string) *endpointtest.Server {
				s := modelServer(name, salt, right, 8, 15*time.Millisecond)
				t.Cleanup(s.Close)
				return s
			}
			calm := newTwoArms(t, bin, c.questions, serve("a", c.right[0], "org/tiny-FP8"), serve("b", c.right[1], "org/tiny-NVFP4"))
			start := time.Now()
			calm.output(calm.args...)
			whole := time.Since(start)
			want, verdict, paid := calm.samples(t)
			if paid["repeated"] != 0 || !strings.HasPrefix(verdict, c.verdict) {
				t.Fatalf("undisturbed: %v, %.200s", paid, verdict)
			}
			if !c.stops && len(want) != 2*c.questions || c.stops && len(want) >= c.questions {
				t.Fatalf("%d answers over %d questions", len(want), c.questions)
			}
			b := newTwoArms(t, bin, c.questions, serve("a", c.right[0], "org/tiny-FP8"), serve("b", c.right[1], "org/tiny-NVFP4"))
			for i := range 10 {
				cmd := b.command(nil, b.args...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(whole/4 + time.Duration(i)*whole/40)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			b.output(b.args...)
			b.check()
			got, again, paid := b.samples(t)
			if !slices.Equal(got, want) {
				t.Errorf("%d answers differ from the %d of an undisturbed run", len(got), len(want))
			}
			if again != verdict {
				t.Errorf("verdict\n%s\nwant\n%s", again, verdict)
			}
			came, extra := b.fp8.Requests()+b.nvfp4.Requests(), 0
			for _, s := range []*endpointtest.Server{b.fp8, b.nvfp4} {
				for _, n := range s.Counts() {
					extra += n - 1
				}
			}
			t.Logf("%s undisturbed; killed: %d requests came, %d of them again, %d counted as repeated, %d beyond the decision", whole.Round(time.Millisecond), came, extra, paid["repeated"], paid["overrun"])
			if extra > paid["repeated"] || came > paid["requests"] {
				t.Errorf("%d requests came, %d of them again; counted are %v", came, extra, paid)
			}
			if paid["repeated"] == 0 && !c.stops {
				t.Error("no kill met a request in flight")
			}
			if most := 10 * 2 * 64; paid["repeated"] > most {
				t.Errorf("%d requests were repeated by ten kills", paid["repeated"])
			}
		})
	}
}
