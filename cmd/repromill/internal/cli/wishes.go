package cli

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/repromill/repromill/cmd/repromill/internal/pipeline"
	"github.com/repromill/repromill/planner"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/content"
)

// wishFlags are what a person asks of the plan itself.
type wishFlags struct {
	suiteFlags
	data       []string
	checkpoint []string
	set        []string
	seeds      int
	sku        string
	preflight  bool
}

func (f *wishFlags) add(fl *pflag.FlagSet) {
	f.suiteFlags.add(fl)
	fl.StringArrayVar(&f.data, "data", nil, "use the folder or file for the data that the plan calls NAME: `NAME=DIR`; ./PATH=DIR shows it at a path of the checkout (repeatable)")
	fl.StringArrayVar(&f.checkpoint, "checkpoint", nil, "use the file, folder or https URL for the weights that the plan calls NAME: `NAME=PATH` (repeatable)")
	fl.StringArrayVar(&f.set, "set", nil, "put VALUE in place of a placeholder of the command: `PLACEHOLDER=VALUE` (repeatable)")
	fl.IntVar(&f.seeds, "seeds", 0, "execute a stochastic run with this many seeds; 1 when left out")
	fl.StringVar(&f.sku, "sku", "", "make the environment for this GPU model, such as b200, with the pins that have to move for it, and estimate its cost")
}

// wishes reads the options, and the content of what is bound.
func (f *wishFlags) wishes(ctx context.Context, a *app) (runner.Wishes, error) {
	w := runner.Wishes{Seeds: f.seeds, SKU: f.sku, Preflight: f.preflight}
	if f.seeds < 0 || f.seeds > planner.MaxSeeds {
		return w, usererrf("give how often a stochastic run is executed, such as 3", "--seeds %d is not between 1 and %d", f.seeds, planner.MaxSeeds)
	}
	var err error
	if w.Compare, err = f.wish(); err != nil {
		return w, err
	}
	if w.Compare != nil {
		for i, b := range w.Compare.Baselines {
			w.Compare.Baselines[i] = a.expand(b)
		}
	}
	for _, g := range []struct {
		kind  string
		words []string
	}{{"data", f.data}, {"checkpoint", f.checkpoint}, {"set", f.set}} {
		for _, word := range g.words {
			b, err := a.binding(ctx, g.kind, word)
			if err != nil {
				return w, err
			}
			w.Bind = append(w.Bind, b)
		}
	}
	return w, nil
}

func (a *app) binding(ctx context.Context, kind, word string) (spec.Binding, error) {
	name, val, ok := strings.Cut(word, "=")
	b := spec.Binding{Kind: kind, Name: name}
	switch {
	case !ok || name == "" || val == "" && kind != "set":
		return b, usererrf("write it as in --"+kind+" "+map[string]string{"data": "imagenet=/data/imagenet", "checkpoint": "model.pth=./model.pth", "set": "N=4"}[kind],
			"--%s %q does not say what is bound to what", kind, word)
	case kind == "set":
		b.Value = val
		return b, nil
	case strings.Contains(val, "://"):
		u, err := url.Parse(val)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || kind == "data" {
			return b, usererrf("give a folder or file; for a checkpoint an https URL without credentials will do", "--%s %s: %q cannot be fetched", kind, name, val)
		}
		b.URL = u.String()
		return b, nil
	}
	path, err := filepath.Abs(a.home(val))
	if err != nil {
		return b, fmt.Errorf("find %s: %w", val, err)
	}
	ui := a.ui()
	ui.start("read " + name)
	sum, err := content.Of(ctx, path, content.Config{Progress: func(files, bytes int64) {
		ui.progress(bytes, 0, "B", fmt.Sprintf("%d files", files))
	}})
	if err != nil {
		ui.abandon()
		return b, fmt.Errorf("--%s %s: %w", kind, name, err)
	}
	b.Path, b.SHA256, b.Bytes, b.Files = path, sum.SHA256, sum.Bytes, sum.Files
	ui.finish(fmt.Sprintf("%s, %s, sha256 %s", pipeline.Count(sum.Files, "file"), pipeline.Size(sum.Bytes), sum.SHA256[:12]))
	return b, nil
}

// home is a path as a shell's user means it.
func (a *app) home(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		return filepath.Join(a.env["HOME"], rest)
	}
	return p
}
