package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/runner/sandbox"
)

// check is one line of `doctor`.
type check struct {
	What   string `json:"what"`
	Status string `json:"status"` // ok|weak|missing
	Found  string `json:"found"`
	Fix    string `json:"fix,omitempty"`
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Short:   "Say what this machine can do, and how to get what is missing",
		Example: "  repromill doctor --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := a.checks(cmd.Context())
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(checks)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			for _, c := range checks {
				fmt.Fprintf(w, "%s\t%s\t%s\n", c.What, c.Status, c.Found)
				if c.Fix != "" {
					fmt.Fprintf(w, "\t\t→ %s\n", c.Fix)
				}
			}
			return w.Flush()
		},
	}
}

func (a *app) checks(ctx context.Context) ([]check, error) {
	sandboxInit, err := self(sandboxEntry)
	if err != nil {
		return nil, err
	}
	out := []check{
		{What: "platform", Status: "ok", Found: fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())},
		isolation(sandbox.Probe(sandbox.Config{Init: sandboxInit})),
	}
	out = append(out, a.engineChecks(ctx)...)
	out = append(out, gpus(),
		a.tool("python3", "python", "for papers' code without Docker: sudo apt-get install python3 python3-venv"),
		a.tool("uv", "uv", "optional, makes environments without Docker faster: pip install uv"),
		a.conda())
	for _, p := range []string{"paths.cache", "paths.state", "paths.results"} {
		out = append(out, a.folder(p))
	}
	return out, nil
}

func isolation(c sandbox.Capabilities) check {
	out := check{What: "sandbox", Status: "ok", Found: string(c.Layer)}
	var with []string
	if c.LandlockABI > 0 {
		with = append(with, fmt.Sprintf("landlock ABI %d", c.LandlockABI))
	}
	if c.Seccomp {
		with = append(with, "seccomp")
	}
	if len(c.Cgroups) > 0 {
		with = append(with, "cgroups "+strings.Join(c.Cgroups, "+"))
	}
	if len(with) > 0 {
		out.Found += " with " + strings.Join(with, ", ")
	}
	switch c.Layer {
	case sandbox.Landlock:
		out.Status = "weak"
	case sandbox.None:
		out.Status, out.Found = "missing", "no isolation: untrusted code is refused without --no-sandbox"
	}
	if out.Status != "ok" {
		out.Fix = strings.Join(c.Problems, "; ")
	}
	return out
}

func (a *app) tool(name, what, fix string) check {
	path, err := a.lookPath(name)
	if err != nil {
		return check{What: what, Status: "missing", Found: name + " is not in PATH", Fix: fix}
	}
	return check{What: what, Status: "ok", Found: path}
}

func (a *app) folder(setting string) check {
	dir := a.cfg.String(setting)
	c := check{What: strings.TrimPrefix(setting, "paths."), Status: "ok"}
	at := dir
	for at != filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		at = filepath.Dir(at)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(at, &fs); err != nil {
		return check{What: c.What, Status: "missing", Found: dir + ": " + err.Error(), Fix: "set " + setting + " in the configuration"}
	}
	free := fs.Bavail * uint64(fs.Bsize)
	c.Found = fmt.Sprintf("%s, %.0f GB free", dir, float64(free)/1e9)
	if free < 5e9 {
		c.Status, c.Fix = "weak", "free some space, or set "+setting+" to another disk"
	}
	return c
}
