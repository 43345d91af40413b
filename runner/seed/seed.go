// Package seed puts model weights and data sets into a cache that the pods of a
// cluster share and only read.
//
//	hub/                     the layout of the hub's own tools: blobs under their SHA-256, snapshots of links
//	seeded/KIND--ORG--NAME/  a marker for each commit that is there as a whole
//	seeding/                 who is at work on what
//
// A marker is written last, so that a pod which finds it needs no network. Any
// number of seeds may work at once: one downloads and the others wait; should it
// die, the next goes on where it stood.
package seed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/results/atomicfile"
)

// Kind is what the hub calls a kind of repository.
type Kind string

// The kinds of repositories.
const (
	Model   Kind = "model"
	Dataset Kind = "dataset"
)

// Want is what has to be in the cache.
type Want struct {
	Kind   Kind   `json:"kind"`
	Repo   string `json:"repo"`   // org/name
	Commit string `json:"commit"` // 40 hex digits
	// Files are what is needed of it; nil is all that serving a model takes.
	Files []File `json:"files,omitempty"`
}

func (w Want) String() string { return fmt.Sprintf("%s %s@%.12s", w.Kind, w.Repo, w.Commit) }

// File is one file of a repository.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size,omitempty"`   // 0 is not known
	SHA256 string `json:"sha256,omitempty"` // "" is not known; any content is taken then
}

// Getter is the way to the hub; [*fetch.Client] is one.
type Getter interface {
	Get(ctx context.Context, r fetch.Request) (*fetch.Response, error)
	URL(s fetch.Site, path string, query url.Values) (string, error)
}

// Config is one seed. Dir, Client and Who are needed.
type Config struct {
	Dir    string // the cache
	Client Getter
	Who    string        // names this process among all that seed
	Stale  time.Duration // without a sign of life; 0 is a minute
	Chunk  int64         // bytes of a request; 0 is 32 MiB
	Now    func() time.Time
	Tell   func(string) // what is being done; nil tells nobody
	// Hook is called around every durable step, with points such as
	// "seed:blob:before"; nil is none.
	Hook func(point string)
}

// UserError is a mistake of the user's, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// Hub is the hub's cache below a cache folder: HF_HUB_CACHE of the pods.
func Hub(dir string) string { return filepath.Join(dir, "hub") }

var (
	commitRE = regexp.MustCompile(`^[0-9a-f]{40}$`)
	repoRE   = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$`)
	shaRE    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func (w Want) check() error {
	if w.Kind != Model && w.Kind != Dataset || !repoRE.MatchString(w.Repo) || !commitRE.MatchString(w.Commit) {
		return &UserError{fmt.Sprintf("%s %q at %q cannot be brought to the cluster's cache", w.Kind, w.Repo, w.Commit), "plan again: org/name at a commit of 40 hex digits is needed"}
	}
	for _, f := range w.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) || strings.Contains(f.Path, `\`) || f.SHA256 != "" && !shaRE.MatchString(f.SHA256) {
			return &UserError{fmt.Sprintf("%q is no file of %s", f.Path, w), "plan again"}
		}
	}
	return nil
}

// folder is the repository's name in all folders.
func (w Want) folder() string {
	return string(w.Kind) + "s--" + strings.ReplaceAll(w.Repo, "/", "--")
}

// marker is the file that says that all of it is there.
func (w Want) marker(dir string) string {
	name := w.Commit
	if w.Files != nil {
		sum := sha256.New()
		files := slices.Clone(w.Files)
		slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
		for _, f := range files {
			fmt.Fprintf(sum, "%s\x00%s\n", f.Path, f.SHA256)
		}
		name += "-" + hex.EncodeToString(sum.Sum(nil)[:6])
	}
	return filepath.Join(dir, "seeded", w.folder(), name+".json")
}

// Missing are those of which the cache does not hold all.
func Missing(dir string, wants []Want) (out []Want, err error) {
	for _, w := range wants {
		if err := w.check(); err != nil {
			return nil, err
		}
		if _, err := os.Stat(w.marker(dir)); errors.Is(err, fs.ErrNotExist) {
			out = append(out, w)
		} else if err != nil {
			return nil, fmt.Errorf("look into the cache: %w", err)
		}
	}
	return out, nil
}

// Ensure brings what is missing to the cache. Whatever its error is, it can be
// called again and goes on.
func Ensure(ctx context.Context, c Config, wants []Want) error {
	c.defaults()
	list, err := Missing(c.Dir, wants)
	if err != nil {
		return err
	}
	for _, w := range list {
		if err := c.one(ctx, w); err != nil {
			return fmt.Errorf("seed %s: %w", w, err)
		}
	}
	return nil
}

func (c *Config) defaults() {
	if c.Stale == 0 {
		c.Stale = time.Minute
	}
	if c.Chunk == 0 {
		c.Chunk = 32 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Tell == nil {
		c.Tell = func(string) {}
	}
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
}

// one seeds a repository, or waits until another has.
func (c *Config) one(ctx context.Context, w Want) error {
	l, done, err := c.lock(ctx, w)
	if err != nil || done {
		return err
	}
	defer l.release()
	files := slices.Clone(w.Files) // the caller's are those of others, too
	if files == nil {
		if files, err = c.list(ctx, w); err != nil {
			return err
		}
	}
	for i, f := range files {
		c.Tell(fmt.Sprintf("%s: %s (%d of %d files)", w, f.Path, i+1, len(files)))
		if files[i], err = c.file(ctx, w, f); err != nil {
			return err
		}
		if l.lost.Load() {
			return errors.New("another seed has taken over")
		}
	}
	if err := c.ref(w); err != nil {
		return err
	}
	b, err := json.MarshalIndent(map[string]any{"kind": w.Kind, "repo": w.Repo, "commit": w.Commit, "files": files, "seeded_at": c.Now().UTC(), "by": c.Who}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode marker: %w", err)
	}
	marker := w.marker(c.Dir)
	if err := os.MkdirAll(filepath.Dir(marker), 0o755); err != nil {
		return err
	}
	c.Hook("seed:marker:before")
	if err := atomicfile.Write(marker, append(b, '\n'), atomicfile.Options{}); err != nil {
		return err
	}
	c.Hook("seed:marker:after")
	c.Tell(fmt.Sprintf("%s is there", w))
	return nil
}

// sibling is a file as the hub lists it (GET /api/models/ID/revision/COMMIT?blobs=true).
type sibling struct {
	Name string `json:"rfilename"`
	Size int64  `json:"size"`
	LFS  *struct {
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
	} `json:"lfs"`
}

// list is what serving a model takes of its repository: all files but copies of
// the weights in other formats.
func (c *Config) list(ctx context.Context, w Want) ([]File, error) {
	u, err := c.Client.URL(fetch.HF, fetch.Path("api", string(w.Kind)+"s", before(w.Repo), after(w.Repo), "revision", w.Commit), url.Values{"blobs": {"true"}})
	if err != nil {
		return nil, err
	}
	res, err := c.Client.Get(ctx, fetch.Request{URL: u, Accept: "application/json"})
	if err != nil {
		return nil, explain(w, "", err)
	}
	var j struct {
		Siblings []sibling `json:"siblings"`
	}
	if err := json.Unmarshal(res.Body, &j); err != nil || len(j.Siblings) == 0 {
		return nil, fmt.Errorf("the hub lists no files of it (%v)", err)
	}
	safe := slices.ContainsFunc(j.Siblings, func(s sibling) bool { return strings.HasSuffix(s.Name, ".safetensors") })
	var out []File
	for _, s := range j.Siblings {
		if unneeded(s.Name, safe) {
			continue
		}
		f := File{Path: s.Name, Size: s.Size}
		if s.LFS != nil {
			f.SHA256, f.Size = s.LFS.SHA256, s.LFS.Size
		}
		out = append(out, f)
	}
	w.Files = out
	return out, w.check()
}

// unneeded are files that no engine reads beside safetensors.
func unneeded(name string, safe bool) bool {
	switch filepath.Ext(name) {
	case ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot":
		return safe
	}
	return strings.HasPrefix(name, "original/") || strings.HasPrefix(name, "metal/") || strings.HasPrefix(name, ".git")
}

// ref lets tools find the commit that are given no revision.
func (c *Config) ref(w Want) error {
	name := filepath.Join(Hub(c.Dir), w.folder(), "refs", "main")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := atomicfile.Once(name, []byte(w.Commit), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func before(repo string) string { a, _, _ := strings.Cut(repo, "/"); return a }
func after(repo string) string  { _, b, _ := strings.Cut(repo, "/"); return b }

// explain says in words what a refusal of the hub means.
func explain(w Want, path string, err error) error {
	page := "https://huggingface.co/" + map[Kind]string{Dataset: "datasets/"}[w.Kind] + w.Repo
	var e *fetch.StatusError
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Header.Get("X-Error-Code") == "GatedRepo" || e.Status == 403:
		return &UserError{w.String() + " is gated", "accept its conditions at " + page + " and put a token of that account into the Secret of the setting cluster.hub_secret, as HF_TOKEN"}
	case e.Status == 401:
		return &UserError{w.String() + " is private or does not exist", "check " + page + ", and put a token into the Secret of the setting cluster.hub_secret, as HF_TOKEN, if it is private"}
	case e.Status == 404:
		return &UserError{fmt.Sprintf("the hub has no %s of %s", strings.TrimSpace("file "+path), w), "see " + page + "/commits/main; plan again"}
	}
	return err
}
