package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/planner/spec"
)

// What packages come to on disk, in bytes, installed on Linux with what they
// pull in: the wheels of 2024 to 2026 on PyPI, rounded up. They only decide
// whether a run is begun.
var heavy = []struct {
	name  *regexp.Regexp
	bytes int64
}{
	{regexp.MustCompile(`(?i)^(torch|torchvision|torchaudio|vllm|sglang|xformers|deepspeed|flash[-_]attn|lightning|pytorch[-_]lightning)\b`), 6e9},
	{regexp.MustCompile(`(?i)^jax\[cuda`), 4e9},
	{regexp.MustCompile(`(?i)^(tensorflow|tensorflow-gpu|tf[-_]nightly|paddlepaddle)\b`), 2e9},
	{regexp.MustCompile(`(?i)^(transformers|datasets|scipy|scikit-learn|pandas|opencv|jax|onnxruntime|pyarrow)\b`), 300e6},
	{regexp.MustCompile(`^-[ref] `), 500e6}, // a file or a tree whose own requirements are not in the plan
}

const (
	lightBytes  = 60e6  // any other package
	spareBytes  = 500e6 // logs, results and what nobody foresees
	imageFactor = 2     // an environment in an image is in the store and in the engine
)

// environmentBytes estimates what an environment takes on disk. Frameworks
// share most of what they pull in, so the largest counts once.
func environmentBytes(e spec.Environment) int64 {
	var most, sum int64
	for _, r := range e.Requirements {
		size := int64(lightBytes)
		for _, h := range heavy {
			if h.name.MatchString(strings.TrimSpace(r.Spec)) {
				size = h.bytes
				break
			}
		}
		if size >= 1e9 {
			most = max(most, size)
			continue
		}
		sum += size
	}
	return most + sum + int64(len(e.SystemPackages))*lightBytes
}

// room refuses a run whose working folders do not fit where they go. source is
// the checkout.
func (d *drive) room(ctx context.Context, source string) error {
	size, err := treeBytes(ctx, source)
	if err != nil {
		return fmt.Errorf("measure the source: %w", err)
	}
	copies, assets := int64(2), int64(0)
	for _, i := range d.eligible(nil) {
		r := &d.plan.Runs[i]
		copies += int64(max(1, len(r.Seeds)))
		for _, a := range r.Assets {
			if a.Access == "auto" {
				assets += a.Bytes
			}
		}
	}
	env := environmentBytes(d.plan.Environment)
	if d.images() != nil {
		env *= imageFactor
		if d.req.Image != "" {
			env = 0
		}
	}
	need := size*copies + assets + env + spareBytes
	free, err := d.free(d.dir)
	if err != nil {
		return fmt.Errorf("look for free space: %w", err)
	}
	if need <= free {
		return nil
	}
	return &UserError{
		fmt.Sprintf("this run needs about %s on disk (%d copies of the source with %s, environment %s, data %s, %s spare) and %s has %s free",
			gb(need), copies, gb(size), gb(env), gb(assets), gb(spareBytes), d.cfg.Dir, gb(free)),
		"make room with `repromill cache prune --keep SIZE`, or set paths.state (REPROMILL_STATE) and paths.cache (REPROMILL_CACHE) to a larger disk",
	}
}

func (d *drive) free(path string) (int64, error) {
	if d.cfg.FreeBytes != nil {
		return d.cfg.FreeBytes(path)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func gb(n int64) string {
	if n < 1e8 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

func treeBytes(ctx context.Context, dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
