package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme runs every command of README.md and compares what it prints with
// what README.md shows, apart from times, sizes and run ids. With -update it
// rewrites README.md. Of the two make targets, `make demo` is run here by its
// last command and both are run as they are by .ci/run.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo, which takes some ten seconds")
	}
	const name = "../../README.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	bin := filepath.Join(home, "bin")
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "repromill"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	commands := 0
	block := regexp.MustCompile("(?ms)^```(console|bash)\n(.*?)^```$")
	got := block.ReplaceAllFunc(text, func(b []byte) []byte {
		m := block.FindSubmatch(b)
		if string(m[1]) == "bash" {
			for line := range strings.Lines(string(m[2])) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
				if line = strings.TrimSpace(line); !strings.HasPrefix(line, "make ") || !bytes.Contains(ci, []byte(line)) {
					t.Errorf("nothing runs %q: write it as console output, or have .ci/run run it", line)
				}
				commands++
			}
			return b
		}
		var out bytes.Buffer
		out.WriteString("```console\n")
		for _, cmd := range regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllSubmatch(m[2], -1) {
			commands++
			out.WriteString("$ " + string(cmd[1]) + "\n")
			out.WriteString(shell(t, home, bin, string(cmd[1])))
		}
		out.WriteString("```")
		return out.Bytes()
	})
	if commands < 8 {
		t.Errorf("only %d commands were found", commands)
	}
	switch {
	case normal(string(got)) == normal(string(text)):
	case *update:
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		if err := os.WriteFile(name+".got", got, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Error("README.md shows other output than its commands print; see README.md.got, or rewrite it with: go test ./cmd/repromill -run Readme -update")
	}
}

func shell(t *testing.T, home, bin, command string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = "../.."
	cmd.Env = []string{"HOME=" + home, "USER=you", "REPROMILL_EXECUTOR=local", "PATH=" + bin + ":" + os.Getenv("PATH")}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", command, err, out, stderr.Bytes())
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(home, "~", root+"/", "").Replace(string(out))
}

// normal takes out what differs from run to run.
func normal(s string) string {
	for _, r := range []struct{ re, with string }{
		{`\b01[0-9A-HJKMNP-TV-Z]{24}\b`, "RUN"},
		{`\b\d+(\.\d+)? ?(ms|s|min|kB|MB|GB|bytes)\b`, "N"},
		{`\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\dZ)?`, "WHEN"},
		{`(?m)^(sandbox|  sandbox|             sandbox) .*(\n {13,}.*)*`, "SANDBOX"},
		{`go1\.[0-9.]+`, "GO"},
		{`[ ─-]+`, " "},
		{`events \d+`, "events N"}, // slow machines report progress more often
		{`\d+ rows`, "N rows"},
		{`(?m)^(RUN .*?) \d+ \d+`, "$1 N N"},
	} {
		s = regexp.MustCompile(r.re).ReplaceAllString(s, r.with)
	}
	return s
}
