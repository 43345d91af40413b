package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// baseImage is Debian with Python, which is what most runs need.
const (
	baseImage    = "repromill/base"
	baseSuite    = "bookworm"
	basePackages = "python3,python3-venv,ca-certificates"
)

// image pushes the base image to the local registry and notes its name, which
// holds its digest. Its file tree is made by debootstrap once and then cached.
func (c *cluster) image(ctx context.Context) error {
	if !c.running() {
		return &needError{"the cluster does not run", "start it: devcluster up"}
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	tree := filepath.Join(cache, "base-"+baseSuite+".tar")
	if _, err := os.Stat(tree); err != nil {
		if err := c.bootstrap(ctx, tree); err != nil {
			return err
		}
	}
	layer, err := tarball.LayerFromFile(tree)
	if err != nil {
		return fmt.Errorf("make base image: %w", err)
	}
	ref, err := c.push(ctx, baseImage, v1.Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}}, layer)
	if err != nil {
		return err
	}
	c.Image = ref
	return c.save()
}

// bootstrap makes the file tree of a Debian with Python.
func (c *cluster) bootstrap(ctx context.Context, tree string) error {
	if !found("debootstrap") {
		return &needError{"not found: debootstrap", "install it: apt-get install --no-install-recommends debootstrap"}
	}
	c.say("making a Debian with Python …")
	dir, err := os.MkdirTemp(filepath.Dir(tree), "base-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	for _, argv := range [][]string{
		{"debootstrap", "--variant=minbase", "--include=" + basePackages, baseSuite, dir},
		{"tar", "-C", dir, "--numeric-owner", "--one-file-system", "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "-cf", tree + ".tmp", "."},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", argv[0], err, out[max(0, len(out)-2000):])
		}
	}
	return os.Rename(tree+".tmp", tree)
}

// push makes an image of layers and pushes it to the local registry; the
// result is its name with its digest.
func (c *cluster) push(ctx context.Context, repo string, cfg v1.Config, layers ...v1.Layer) (string, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", Config: cfg, RootFS: v1.RootFS{Type: "layers"}})
	if err == nil {
		img, err = mutate.AppendLayers(img, layers...)
	}
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", repo, err)
	}
	tag, err := name.NewTag(c.registry()+"/"+repo+":1", name.Insecure)
	if err != nil {
		return "", fmt.Errorf("name image %s: %w", repo, err)
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push image %s: %w", repo, err)
	}
	d, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("name image %s: %w", repo, err)
	}
	return tag.Context().Digest(d.String()).String(), nil
}
