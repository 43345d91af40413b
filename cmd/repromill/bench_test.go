package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buildBinary builds the program as it is released.
func buildBinary(b *testing.B) string {
	b.Helper()
	bin := filepath.Join(b.TempDir(), "repromill")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// gauge keeps what the processes of a benchmark used, children included.
type gauge struct {
	memory int64 // the most that one of them held, in KiB
	cpu    time.Duration
	n      int
}

// run runs the program once, at home in a folder.
func (g *gauge) run(b *testing.B, bin, home string, args ...string) {
	cmd := exec.Command(bin, args...)
	cmd.Env = []string{"REPROMILL_EXECUTOR=local", "HOME=" + home, "PATH=" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%.2000s", args, err, out)
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		g.memory = max(g.memory, usage.Maxrss)
	}
	g.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	g.n++
}

// report adds memory and processor time, which, unlike the wall clock, hardly
// depend on what else the machine does.
func (g *gauge) report(b *testing.B) {
	b.ReportMetric(float64(g.memory)/1024, "MiB-rss")
	b.ReportMetric(float64(g.cpu.Milliseconds())/float64(g.n), "cpu-ms/op")
}

// BenchmarkResolveProcess is the whole process; the goal is under 30 ms.
func BenchmarkResolveProcess(b *testing.B) {
	bin := buildBinary(b)
	home, g := b.TempDir(), gauge{}
	for b.Loop() {
		g.run(b, bin, home, "resolve", "--json", "https://arxiv.org/pdf/hep-th/9901001v3")
	}
	g.report(b)
}

// BenchmarkPlanProcess10kFiles plans a repository of 10,000 files, with and
// without its checkout in the cache; the goals are under 2 s and 300 MB.
func BenchmarkPlanProcess10kFiles(b *testing.B) {
	bin := buildBinary(b)
	repo := b.TempDir()
	write := func(name, text string) {
		path := filepath.Join(repo, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for name, text := range smallPaper(0) {
		write(name, text)
	}
	module := "import os, json\nimport numpy as np\n\n" + strings.Repeat("def f(x, y=1):\n    \"\"\"Adds.\"\"\"\n    return {\"sum\": x + y}\n\n", 20)
	for i := range 10_000 - 2 {
		name, text := fmt.Sprintf("pkg%02d/mod%03d.py", i%50, i/50), module
		switch i % 10 {
		case 7:
			name, text = strings.TrimSuffix(name, ".py")+".md", "# Part\n\n"+strings.Repeat("Words about [it](https://example.org) in `code`.\n\n", 20)
		case 8:
			name, text = strings.TrimSuffix(name, ".py")+".json", `{"metrics": [`+strings.Repeat("1.25, ", 200)+`0]}`
		case 9:
			name, text = strings.TrimSuffix(name, ".py")+".bin", strings.Repeat("\x00\xff\x13", 1000)
		}
		write(name, text)
	}
	// The cache is read-only on purpose; the test's own cleaning has to get through.
	open := func(home string) { _ = exec.Command("chmod", "-R", "u+w", home).Run() }
	b.Run("cold", func(b *testing.B) {
		var g gauge
		for b.Loop() {
			b.StopTimer()
			home := b.TempDir()
			b.StartTimer()
			g.run(b, bin, home, "plan", "--json", repo)
			b.StopTimer()
			open(home)
			b.StartTimer()
		}
		g.report(b)
	})
	b.Run("warm", func(b *testing.B) {
		home, g := b.TempDir(), gauge{}
		b.Cleanup(func() { open(home) })
		for b.Loop() {
			g.run(b, bin, home, "plan", "--json", repo)
		}
		g.report(b)
	})
}
