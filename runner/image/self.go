package image

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/repromill/repromill/runner/image/layer"
	"github.com/repromill/repromill/runner/tree"
)

// SelfPath is where our own program lies in an image made by [Builder.Self].
const SelfPath = "/usr/local/bin/repromill"

// SelfRequest asks for an image of this program.
type SelfRequest struct {
	Binary  string // path of the program
	Base    string // base image; empty for none, which needs a static program
	Version string
	Time    time.Time // of the build; every file gets it
}

// Self appends our own program to a base: the image of the cluster's workers.
// It needs no daemon.
func (b *Builder) Self(ctx context.Context, req SelfRequest) (v1.Image, error) {
	f, err := elf.Open(req.Binary)
	if err != nil {
		return nil, &UserError{req.Binary + " is no program for Linux", "build one with `CGO_ENABLED=0 GOOS=linux go build ./cmd/repromill` and name it with --binary"}
	}
	defer f.Close()
	dynamic := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if dynamic && req.Base == "" {
		return nil, &UserError{req.Binary + " is linked dynamically and would not start in an empty image",
			"build it with CGO_ENABLED=0, or name a base image with --base"}
	}
	img, from := v1.Image(empty.Image), &v1.ConfigFile{Architecture: "amd64", OS: "linux"}
	if f.Machine == elf.EM_AARCH64 {
		from.Architecture = "arm64"
	}
	if req.Base != "" {
		bs, _, err := b.resolveBase(ctx, req.Base)
		if err != nil {
			return nil, fmt.Errorf("find base image: %w", err)
		}
		img = bs.image
		if from, err = img.ConfigFile(); err != nil {
			return nil, fmt.Errorf("read base image: %w", err)
		}
	}
	l, err := b.programLayer(ctx, req)
	if err != nil {
		return nil, err
	}
	if img, err = mutate.AppendLayers(img, matching(img, l)); err != nil {
		return nil, fmt.Errorf("append program: %w", err)
	}
	return withConfig(img, from, func(c *v1.Config) {
		c.Entrypoint, c.Cmd, c.User, c.WorkingDir = []string{SelfPath}, nil, fmt.Sprintf("%d:%d", nobody, nobody), "/"
		if len(c.Env) == 0 {
			c.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
		}
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels["org.opencontainers.image.version"] = req.Version
	})
}

func (b *Builder) programLayer(ctx context.Context, req SelfRequest) (*layer.Layer, error) {
	dir, err := os.MkdirTemp(filepath.Join(b.cfg.Dir, "work"), "self-")
	if err != nil {
		return nil, fmt.Errorf("copy program: %w", err)
	}
	defer discard(dir)
	to := filepath.Join(dir, filepath.FromSlash(SelfPath))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return nil, fmt.Errorf("copy program: %w", err)
	}
	if err := tree.CopyFile(req.Binary, to, buildOwner()); err != nil {
		return nil, fmt.Errorf("copy program: %w", err)
	}
	return b.blobs.Write(ctx, dir, layer.Options{Time: req.Time})
}

// PushTo uploads an image under a name and returns its name by digest.
func (b *Builder) PushTo(ctx context.Context, ref string, img v1.Image) (string, error) {
	b.cfg.Progress(Event{"push", ref})
	pin, err := b.cfg.Registry.Push(ctx, ref, img)
	if err != nil {
		return "", err
	}
	return pin.Name(), nil
}
