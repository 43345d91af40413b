package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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

// processes runs a command once per iteration and reports the largest memory
// that one of them held.
func processes(b *testing.B, bin, home string, args ...string) {
	b.Helper()
	var most int64
	for b.Loop() {
		cmd := exec.Command(bin, args...)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%.2000s", args, err, out)
		}
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			most = max(most, usage.Maxrss)
		}
	}
	b.ReportMetric(float64(most)/1024, "MiB-rss")
}

// BenchmarkResolveProcess is the whole process; the goal is under 30 ms.
func BenchmarkResolveProcess(b *testing.B) {
	bin := buildBinary(b)
	processes(b, bin, b.TempDir(), "resolve", "--json", "https://arxiv.org/pdf/hep-th/9901001v3")
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
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			home := b.TempDir()
			b.StartTimer()
			cmd := exec.Command(bin, "plan", "--json", repo)
			cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v\n%.2000s", err, out)
			}
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				b.ReportMetric(float64(usage.Maxrss)/1024, "MiB-rss")
			}
			b.StopTimer()
			// The cache is read-only on purpose; the test's own cleaning has
			// to get through.
			_ = exec.Command("chmod", "-R", "u+w", home).Run()
			b.StartTimer()
		}
	})
	b.Run("warm", func(b *testing.B) {
		home := b.TempDir()
		b.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", home).Run() })
		processes(b, bin, home, "plan", "--json", repo)
	})
}
