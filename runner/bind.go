package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/content"
)

// Assets fetches what a plan names by URL.
type Assets interface {
	// Fetch gives a file that holds the answer, whose name may be anything, and
	// the SHA-256 of its bytes. The file stays until the cache is pruned.
	Fetch(ctx context.Context, url string) (path, sha256 string, bytes int64, err error)
}

// Input is content that somebody bound to the run. An executor that shares the
// file system of this machine shows it through ReadOnly; any other shows the
// same content at the same Path (a container mounts it read-only, a cluster
// needs a volume that holds it), or refuses the attempt with that reason.
type Input struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // absolute; the command refers to it by this name
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes,omitempty"`
}

// inputs makes sure that what is bound is what the plan was made with, and
// says where it lies. What is not refuses the runs that use it.
func (d *drive) inputs(ctx context.Context, out *Prepared) error {
	eligible := d.eligible(out.Refused)
	for i := range d.plan.Bindings {
		b := &d.plan.Bindings[i]
		var users []*spec.Run
		for _, k := range eligible {
			if r := &d.plan.Runs[k]; slices.Contains(b.Runs, r.ID) {
				users = append(users, r)
			}
		}
		if len(users) == 0 {
			continue
		}
		in, why, err := d.input(ctx, b)
		if err != nil {
			return err
		}
		for _, r := range users {
			if w := why; w != "" || r.Script != nil && strings.Contains(r.Script.Text, b.Token()) && !plainRE.MatchString(in.Path) {
				if w == "" {
					w = fmt.Sprintf("its script cannot hold the path %q of %s; use one of letters, digits and _./:@=+,- only", in.Path, b.Name)
				}
				out.Refused = append(out.Refused, Refusal{r.ID, w})
			}
		}
		if why != "" {
			continue
		}
		if b.Kind != "set" {
			out.Inputs = append(out.Inputs, in)
		}
		out.Deviations = append(out.Deviations, given(b, in))
	}
	return nil
}

var plainRE = regexp.MustCompile(`^[A-Za-z0-9_./:@=+,-]*$`)

// given is the deviation that a binding is.
func given(b *spec.Binding, in Input) spec.Deviation {
	dev := spec.Deviation{What: b.Kind + " " + b.Name, Declared: b.For, Used: b.Value, Reason: "given with --" + b.Kind}
	if b.Kind != "set" {
		dev.Used = b.Path
		if b.URL != "" {
			dev.Used = b.URL
		}
		dev.Used += fmt.Sprintf(" (%d bytes, sha256 %s)", in.Bytes, in.SHA256)
	}
	if b.Place != "" {
		dev.Reason += ", shown at " + b.Place
	}
	return dev
}

// input is where a binding lies, or why it cannot be used.
func (d *drive) input(ctx context.Context, b *spec.Binding) (in Input, why string, err error) {
	in = Input{Name: b.Name, Path: b.Path, SHA256: b.SHA256, Bytes: b.Bytes}
	switch {
	case b.Kind == "set":
		return in, "", nil
	case b.URL != "":
		return d.fetched(ctx, b, in)
	}
	for _, own := range []string{d.cfg.Dir, d.dir} {
		if rel, err := filepath.Rel(in.Path, own); err == nil && filepath.IsLocal(rel) {
			return in, fmt.Sprintf("%s, bound as %s, holds the state of this program; name a folder of data", in.Path, b.Name), nil
		}
	}
	last := d.cfg.Now()
	var told error
	sum, err := content.Of(ctx, in.Path, content.Config{Progress: func(_, bytes int64) {
		if now := d.cfg.Now(); now.Sub(last) >= progressEvery && told == nil {
			last = now
			told = d.cfg.Store.Append(ctx, d.run.ID, event(StagePrepare, Progress,
				map[string]any{"done": bytes, "total": b.Bytes, "unit": "B", "message": "reading " + b.Name}))
		}
	}})
	var user *content.Error
	switch {
	case errors.As(err, &user):
		return in, fmt.Sprintf("the %s %s cannot be used: %v", b.Kind, b.Name, err), nil
	case err != nil || told != nil:
		return in, "", errors.Join(err, told)
	case sum.SHA256 != b.SHA256:
		return in, fmt.Sprintf("%s has changed since the plan was made with it as %s: its SHA-256 is %s, not %s (%d files and %d bytes, not %d and %d); put back what was there, or plan again with --%s %s=%s",
			in.Path, b.Name, sum.SHA256, b.SHA256, sum.Files, sum.Bytes, b.Files, b.Bytes, b.Kind, b.Name, in.Path), nil
	}
	return in, "", nil
}

// progressEvery is how often reading what is bound is told.
const progressEvery = 5 * time.Second

// fetched gets a binding that is named by URL. That a site does not have or
// give it is an outcome; that it could not be asked is not.
func (d *drive) fetched(ctx context.Context, b *spec.Binding, in Input) (Input, string, error) {
	fix := fmt.Sprintf("; download it and give the file with --%s %s=PATH", b.Kind, b.Name)
	if d.cfg.Assets == nil {
		return in, b.URL + " cannot be fetched by this program" + fix, nil
	}
	var err error
	in.Path, in.SHA256, in.Bytes, err = d.cfg.Assets.Fetch(ctx, b.URL)
	var (
		status  *fetch.StatusError
		blocked *fetch.BlockedError
		large   *fetch.TooLargeError
		mirror  *fetch.NotInMirrorError
	)
	switch {
	case errors.As(err, &status), errors.As(err, &blocked), errors.As(err, &large), errors.As(err, &mirror):
		return in, fmt.Sprintf("the %s %s cannot be fetched: %v", b.Kind, b.Name, err) + fix, nil
	case err != nil:
		return in, "", fmt.Errorf("fetch %s: %w", b.URL, err)
	case b.SHA256 != "" && in.SHA256 != b.SHA256:
		return in, fmt.Sprintf("%s gives something else than the plan was made with: its SHA-256 is %s, not %s", b.URL, in.SHA256, b.SHA256) + fix, nil
	}
	return in, "", nil
}

// bound are the inputs of one run.
func (u unit) bound(p *spec.Plan) (out []Input) {
	for _, in := range u.prep.Inputs {
		i := slices.IndexFunc(p.Bindings, func(b spec.Binding) bool { return b.Name == in.Name })
		if i >= 0 && slices.Contains(p.Bindings[i].Runs, u.run.ID) {
			out = append(out, in)
		}
	}
	return out
}

// placeInputs makes the links of a unit's tree under which the code finds what
// its command does not name.
func (d *drive) placeInputs(u unit, tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, in := range u.bound(d.plan) {
		i := slices.IndexFunc(d.plan.Bindings, func(b spec.Binding) bool { return b.Name == in.Name })
		place := d.plan.Bindings[i].Place
		if place == "" {
			continue
		}
		name := filepath.FromSlash(place)
		if _, err := root.Lstat(name); err == nil {
			return mismatch(fmt.Sprintf("%s cannot be shown at %s: the checkout has something there; name a path that is free, such as %s", in.Name, place, path.Join(place, in.Name)))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return mismatch(fmt.Sprintf("%s cannot be shown at %s: %v", in.Name, place, err))
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return mismatch(fmt.Sprintf("%s cannot be shown at %s: %v", in.Name, place, err))
		}
		if err := root.Symlink(in.Path, name); err != nil {
			return err
		}
	}
	return nil
}
