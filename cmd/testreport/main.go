// Command testreport reads the output of `go test -json` and prints what a
// person wants to know: one line a package, the output of what failed, and at
// the end every skipped test with its reason.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	os.Exit(report(os.Stdin, os.Stdout))
}

// event is one line of test2json (cmd/test2json in the Go distribution).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

type counts struct{ passed, failed, skipped int }

// report copies what matters from r to w and returns the exit code: 0 only if
// at least one test ran and nothing failed.
func report(r io.Reader, w io.Writer) int {
	var total counts
	var skips []string
	output := map[string][]string{} // by package and test
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 1<<20), 64<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(w, sc.Text()) // a build error before the first test
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Action == "build-output" {
				key = e.ImportPath + " "
			}
			output[key] = append(output[key], e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				packageLine(w, e, output)
				if e.Action == "fail" {
					total.failed++
				}
				continue
			}
			switch e.Action {
			case "pass":
				total.passed++
			case "fail":
				total.failed++
				fmt.Fprintf(w, "%s", strings.Join(output[key], ""))
			case "skip":
				total.skipped++
				skips = append(skips, fmt.Sprintf("  %s %s: %s", short(e.Package), e.Test, reason(output[key])))
			}
			delete(output, key)
		}
	}
	if err := sc.Err(); err != nil {
		fmt.Fprintln(w, "testreport:", err)
		return 1
	}
	if len(skips) > 0 {
		slices.Sort(skips)
		fmt.Fprintf(w, "\nskipped, with the reason:\n%s\n", strings.Join(skips, "\n"))
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if total.failed > 0 || total.passed == 0 {
		return 1
	}
	return 0
}

func packageLine(w io.Writer, e event, output map[string][]string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(w, "ok    %-55s %6.1fs\n", short(e.Package), e.Elapsed)
	case "fail":
		for _, key := range []string{e.FailedBuild + " ", e.Package + " "} {
			fmt.Fprint(w, strings.Join(output[key], ""))
		}
		fmt.Fprintf(w, "FAIL  %-55s %6.1fs\n", short(e.Package), e.Elapsed)
	}
}

func short(pkg string) string {
	return strings.TrimPrefix(pkg, "github.com/repromill/repromill/")
}

// reason is the last thing a skipped test said.
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "---") || strings.HasPrefix(l, "===") {
			continue
		}
		return l
	}
	return "no reason given"
}
