package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/tree"
)

// Images makes the image that the commands of a plan run in, for an executor
// that runs attempts in images.
type Images interface {
	// Image builds the image, or finds the one that was built from the same
	// inputs. That an environment cannot be made is an outcome.
	Image(ctx context.Context, req ImageRequest) (Image, error)
}

// ImageRequest is what an image is made from.
type ImageRequest struct {
	RunID string
	Plan  *spec.Plan
	Given string // an image that is taken as it is; empty means that one is made
	// Source is the checkout with the patches that every run carries. It is
	// only read.
	Source string
	Lock   string // versions that installing is held to; see Request.Lock
	// Progress is told what is being done, in words; it may be nil.
	Progress func(what string)
}

// Image is an environment that commands can run in.
type Image struct {
	Ref        string           `json:"ref"`              // what the executor runs, by an id or a digest
	Key        string           `json:"key"`              // of the inputs; the same inputs give the same key
	Digest     string           `json:"digest,omitempty"` // of the image
	Base       string           `json:"base,omitempty"`   // of the base image, with its digest
	Python     string           `json:"python,omitempty"` // "3.11"
	Lock       string           `json:"lock,omitempty"`   // what was installed, one "name==version" a line
	Reused     bool             `json:"reused"`
	Seconds    float64          `json:"seconds"` // that making or finding it took
	Log        string           `json:"log,omitempty"`
	Deviations []spec.Deviation `json:"-"`
	// Source is where the image expects the checkout; empty means nowhere.
	Source string `json:"source,omitempty"`
	// Overlay is a folder with files that installing made inside of the
	// checkout, such as compiled extensions; empty means none.
	Overlay string `json:"overlay,omitempty"`
	// Failure says why there is no image, with the package and the constraint.
	Failure string `json:"failure,omitempty"`
}

// images are those of the run's executor, nil where attempts run with this
// machine's own programs.
func (d *drive) images() Images { return d.cfg.Images[d.executorName(d.req)] }

// environment makes the image that every unit runs in.
func (d *drive) environment(ctx context.Context, out *Prepared) error {
	var told error
	began := d.cfg.Now()
	img, err := d.images().Image(ctx, ImageRequest{RunID: d.run.ID, Plan: d.plan, Given: d.req.Image, Source: d.tree(), Lock: d.req.Lock, Progress: func(what string) {
		told = errors.Join(told, d.cfg.Store.Append(ctx, d.run.ID, event(StagePrepare, Progress, map[string]any{"message": what})))
	}})
	if err = errors.Join(err, told); err != nil {
		return fmt.Errorf("make the environment image: %w", err)
	}
	img.Seconds = d.cfg.Now().Sub(began).Seconds()
	out.Deviations = append(out.Deviations, img.Deviations...)
	if img.Failure != "" {
		out.InstallFailed = "the environment could not be made: " + img.Failure
		return nil
	}
	if img.Overlay != "" && exists(d.work()) {
		if err := d.overlay(ctx, img.Overlay); err != nil {
			return fmt.Errorf("place what installing built: %w", err)
		}
	}
	out.Image = &img
	d.pending = append(d.pending, event(StagePrepare, Log, map[string]any{"image": img}))
	return nil
}

// overlay copies the files that installing built into the source, over what is
// there.
func (d *drive) overlay(ctx context.Context, from string) error {
	tmp := filepath.Join(d.dir, "overlay"+tmpSuffix)
	if err := tree.Remove(tmp); err != nil {
		return err
	}
	if err := tree.Copy(ctx, from, tmp, nil); err != nil {
		return err
	}
	root, err := os.OpenRoot(d.work())
	if err != nil {
		return err
	}
	defer root.Close()
	err = filepath.WalkDir(tmp, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == tmp {
			return err
		}
		rel, err := filepath.Rel(tmp, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return root.MkdirAll(rel, 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := root.Remove(rel); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return root.WriteFile(rel, b, info.Mode().Perm())
	})
	return errors.Join(err, tree.Remove(tmp))
}

// inImage completes an attempt of a unit that runs in an image.
func (d *drive) inImage(a *Attempt, img *Image) {
	if img == nil {
		return
	}
	a.Image = img.Ref
	if img.Source != "" {
		a.Alias = map[string]string{img.Source: d.work()}
	}
}
