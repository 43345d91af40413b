package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/pflag"

	"github.com/repromill/repromill/cmd/repromill/internal/cache"
	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/runner/content"
	"github.com/repromill/repromill/runner/engine/ptq"
	"github.com/repromill/repromill/runner/tree"
)

// quantizeFlags make the models that a target is compared with.
type quantizeFlags struct {
	formats     []string
	calibration string
}

func (f *quantizeFlags) add(fl *pflag.FlagSet) {
	fl.StringSliceVar(&f.formats, "quantize", nil, "of a model in a folder: quantise it on this machine to these `FORMATS` (fp8,nvfp4,nvfp4-w4a4) and compare each with it")
	fl.StringVar(&f.calibration, "calibration", "", "with --quantize: run the model over the text in `FILE` for the scales of inputs")
}

func (f *quantizeFlags) check(model bool) error {
	switch {
	case len(f.formats) == 0 && f.calibration != "":
		return usererrf("give --quantize FORMATS with it", "--calibration is for the models that --quantize makes")
	case len(f.formats) > 0 && !model:
		return usererrf("name one folder with config.json, tokenizer.json and safetensors", "--quantize takes a model in a folder as its target")
	}
	for i, name := range f.formats {
		if !slices.Contains(ptq.Formats, ptq.Format(name)) || slices.Contains(f.formats[:i], name) {
			return usererrf("formats are nvfp4, nvfp4-w4a4 and fp8, each once", "--quantize %q", name)
		}
	}
	return nil
}

// quantized quantises the target where that is asked for. The last format becomes
// what is planned; the target and the other formats become baselines, the target
// the first of them.
func (a *app) quantized(ctx context.Context, f *planFlags, name string) (string, error) {
	if err := f.quantizeFlags.check(name != ""); err != nil || len(f.formats) == 0 {
		return name, err
	}
	t, err := target.Parse(a.expand(name))
	if err != nil {
		return "", err
	}
	if t.Kind != target.Local || !intake.IsCheckpoint(t.Path) {
		return "", usererrf("name a folder with config.json, tokenizer.json and safetensors", "--quantize takes a model in a folder, and %s is none", name)
	}
	cfg := ptq.Config{Dir: t.Path, MaxSamples: calibrationSamples, Threads: runtime.GOMAXPROCS(0), Version: buildVersion().Version}
	if f.calibration != "" {
		if cfg.Text, err = a.calibrationText(f.calibration); err != nil {
			return "", err
		}
	}
	sum, _, err := content.Checkpoint(ctx, t.Path, content.Config{})
	if err != nil {
		return "", err
	}
	f.baselines = append(f.baselines, t.Path)
	for i, format := range f.formats {
		cfg.Format = ptq.Format(format)
		out, err := a.quantizedOnce(ctx, cfg, sum.SHA256)
		if err != nil {
			return "", err
		}
		if name = out; i < len(f.formats)-1 {
			f.baselines = append(f.baselines, out)
		}
	}
	return name, nil
}

// quantizedDir is the folder of the cache with models that --quantize made.
func (a *app) quantizedDir() string {
	return filepath.Join(a.cfg.String("paths.cache"), "quantized")
}

// quantizedOnce is the folder with a model in a format, which is made unless this
// build made it before of the same content and text.
func (a *app) quantizedOnce(ctx context.Context, cfg ptq.Config, weights string) (string, error) {
	key := fmt.Sprintf("%s\x00%s\x00%d\x00%s\x00%s\x00", weights, cfg.Format, cfg.MaxSamples, cfg.Text, createdBy())
	if v := buildVersion(); v.Modified || v.Version == "devel" {
		// What such a build would write is known by the build alone.
		if exe, err := os.Executable(); err == nil {
			if info, err := os.Stat(exe); err == nil {
				key += info.ModTime().String()
			}
		}
	}
	h := sha256.Sum256([]byte(key))
	dir := filepath.Join(a.quantizedDir(), hex.EncodeToString(h[:8]))
	cfg.Out = filepath.Join(dir, filepath.Base(cfg.Dir)+"-"+string(cfg.Format))
	made := func() (bool, error) {
		_, err := os.Stat(cfg.Out)
		if err == nil {
			now := a.now()
			_ = os.Chtimes(dir, now, now) // only for the cache's order
			return true, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("look for quantised model: %w", err)
	}
	if done, err := made(); done || err != nil {
		return cfg.Out, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", usererrf("set paths.cache to a folder that can be written", "cannot make a folder for the quantised model: %v", err)
	}
	// Another process may be at the same model.
	lock := flock.New(filepath.Join(dir, "lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("lock quantised model: %w", err)
	}
	defer lock.Unlock()
	if done, err := made(); done || err != nil {
		return cfg.Out, err
	}
	cfg.Hook = a.failpoint()
	u := a.ui()
	u.start("quantise to " + string(cfg.Format))
	cfg.Progress = u.progress
	r, err := ptq.Quantize(ctx, cfg)
	if err != nil {
		u.abandon()
		return "", err
	}
	u.finish(fmt.Sprintf("%d weights", r.Quantised))
	return cfg.Out, nil
}

// quantizedModels are what --quantize made.
type quantizedModels struct {
	dir  string
	need needs
}

func (quantizedModels) Name() string { return "quantized" }

func (x quantizedModels) Items(context.Context) (out []cache.Item, err error) {
	found, err := filepath.Glob(filepath.Join(x.dir, "*", "*"))
	for _, path := range found {
		info, err := os.Stat(filepath.Dir(path))
		if err != nil {
			continue // it went meanwhile
		}
		it := cache.Item{Area: x.Name(), Name: path, Used: info.ModTime(), InUse: neededBy(x.need.model[path])}
		files, err := os.ReadDir(path)
		if err != nil {
			continue
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				it.Bytes += info.Size()
			}
		}
		out = append(out, it)
	}
	return out, err
}

func (x quantizedModels) Keep(ctx context.Context, keep int64) (int64, error) {
	items, err := x.Items(ctx)
	if err != nil {
		return 0, err
	}
	return lru(items, keep, func(it cache.Item) (bool, error) {
		err := tree.Remove(filepath.Dir(it.Name))
		return err == nil, err
	})
}
