// Package data reads the files of published benchmarks from the hub: at a pinned
// commit, through the hub's own cache layout, as rows of Parquet, JSONL, JSON or
// CSV. Nothing of a benchmark is shipped with this program.
package data

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/fetch"
)

// Getter is the way to the outside; *fetch.Client is one.
type Getter interface {
	Get(ctx context.Context, r fetch.Request) (*fetch.Response, error)
	URL(s fetch.Site, path string, query url.Values) (string, error)
}

// Config says where data sets come from.
type Config struct {
	Client Getter
	// Cache is the hub's cache folder, in which its own tools look too: see
	// [CacheDir]. "" means that nothing is read from or kept in it.
	Cache string
}

// Hub reads data sets. It is safe for concurrent use.
type Hub struct{ c Config }

// New returns a hub.
func New(c Config) *Hub { return &Hub{c} }

// CacheDir is the hub's cache folder by the conventions of its tools: HF_HUB_CACHE,
// HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub (huggingface_hub, src/huggingface_hub/constants.py).
func CacheDir(getenv func(string) string) string {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if v := getenv(name); v != "" {
			return v
		}
	}
	if v := getenv("HF_HOME"); v != "" {
		return filepath.Join(v, "hub")
	}
	if v := getenv("XDG_CACHE_HOME"); v != "" {
		return filepath.Join(v, "huggingface", "hub")
	}
	return filepath.Join(getenv("HOME"), ".cache", "huggingface", "hub")
}

// File names one file of a data set.
type File struct {
	Repo   string `json:"repo"`   // org/name on the hub
	Commit string `json:"commit"` // 40 hex digits, or a branch or tag to be resolved
	Path   string `json:"path"`
	// SHA256 of the content where it is known in advance, hex. Another content is
	// refused.
	SHA256 string `json:"sha256,omitempty"`
}

func (f File) String() string { return f.Repo + "@" + f.Commit + ":" + f.Path }

// Local is a file of a data set on this machine.
type Local struct {
	File
	Name   string // where it lies; not to be written to
	Cached bool   // it was there
}

// Error says that a data set cannot be had or read, and what would do; it is the
// user's to correct.
type Error struct{ Msg, Fix string }

func (e *Error) Error() string { return e.Msg }

// UserError returns the fix.
func (e *Error) UserError() string { return e.Fix }

var (
	commitRE = regexp.MustCompile(`^[0-9a-f]{40}$`)
	repoRE   = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$`)
)

// MaxFile is the largest file of a data set that is read.
const MaxFile = 4 << 30

// Resolve returns the commit that a branch or tag of a data set stands for; a
// commit stands for itself. Without a network the cache's own note is used.
func (h *Hub) Resolve(ctx context.Context, repo, revision string) (string, error) {
	if !repoRE.MatchString(repo) {
		return "", &Error{fmt.Sprintf("%q is no data set of the hub", repo), "write org/name"}
	}
	if commitRE.MatchString(revision) {
		return revision, nil
	}
	if revision == "" {
		revision = "main"
	}
	u, err := h.c.Client.URL(fetch.HF, fetch.Path("api", "datasets", before(repo), after(repo), "revision", revision), nil)
	if err != nil {
		return "", err
	}
	res, err := h.c.Client.Get(ctx, fetch.Request{URL: u, Accept: "application/json"})
	if err != nil {
		if b, rerr := os.ReadFile(filepath.Join(h.folder(repo), "refs", filepath.FromSlash(revision))); h.c.Cache != "" && rerr == nil && filepath.IsLocal(revision) && ctx.Err() == nil {
			if commit := strings.TrimSpace(string(b)); commitRE.MatchString(commit) {
				return commit, nil
			}
		}
		return "", explain(repo, "", err)
	}
	var j struct {
		SHA string `json:"sha"`
	}
	if err := json.Unmarshal(res.Body, &j); err != nil || !commitRE.MatchString(j.SHA) {
		return "", fmt.Errorf("resolve %s: the hub names no commit", repo)
	}
	return j.SHA, nil
}

// Open makes a file of a data set present on this machine: from the hub's cache,
// else from the hub, after which it lies in the cache too.
func (h *Hub) Open(ctx context.Context, f File) (Local, error) {
	var err error
	if f.Commit, err = h.Resolve(ctx, f.Repo, f.Commit); err != nil {
		return Local{}, err
	}
	if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
		return Local{}, &Error{fmt.Sprintf("%q is no path within a data set", f.Path), "give a path below the data set's root"}
	}
	out := Local{File: f, Name: h.snapshot(f)}
	if h.c.Cache != "" {
		if info, err := os.Stat(out.Name); err == nil && info.Mode().IsRegular() {
			out.Cached = true
			out.SHA256, err = h.checked(out.Name, f)
			return out, err
		}
	}
	parts := append([]string{"datasets", before(f.Repo), after(f.Repo), "resolve", f.Commit}, strings.Split(f.Path, "/")...)
	u, err := h.c.Client.URL(fetch.HF, fetch.Path(parts...), nil)
	if err != nil {
		return Local{}, err
	}
	// A commit never changes, so what was fetched once stays good.
	res, err := h.c.Client.Get(ctx, fetch.Request{URL: u, MaxBytes: MaxFile, NoBody: true, MaxAge: 10 * 365 * 24 * hour, Timeout: 2 * hour})
	if err != nil {
		return Local{}, explain(f.Repo, f.Path, err)
	}
	out.Name = res.Path
	if out.SHA256, err = h.checked(res.Path, f); err != nil {
		return Local{}, err
	}
	if h.c.Cache != "" && !res.FromMirror {
		if err := h.keep(out); err == nil { // the cache is a convenience
			out.Name = h.snapshot(f)
		}
	}
	return out, nil
}

func before(repo string) string { a, _, _ := strings.Cut(repo, "/"); return a }
func after(repo string) string  { _, b, _ := strings.Cut(repo, "/"); return b }

// explain says in words what a refusal of the hub means.
func explain(repo, path string, err error) error {
	page := "https://huggingface.co/datasets/" + repo
	var missing *fetch.NotInMirrorError
	if errors.As(err, &missing) {
		return &Error{fmt.Sprintf("the mirror does not hold the data set %s: the file %s is missing", repo, missing.File),
			"put the file there, or leave out --mirror"}
	}
	var e *fetch.StatusError
	if !errors.As(err, &e) {
		return fmt.Errorf("read data set %s: %w", repo, err)
	}
	switch code := e.Header.Get("X-Error-Code"); {
	case code == "GatedRepo" || e.Status == 403:
		return &Error{"the data set " + repo + " is gated", "accept its conditions at " + page + " and set HF_TOKEN to a token of that account"}
	case e.Status == 401:
		return &Error{"the data set " + repo + " is private or does not exist", "check " + page + ", and set HF_TOKEN if it is private"}
	case e.Status == 404 && path != "":
		return &Error{fmt.Sprintf("the data set %s has no file %s at that commit", repo, path), "see " + page + "/tree/main for its files and commits"}
	case e.Status == 404:
		return &Error{"there is no data set " + repo, "check the name at " + page + " (case matters)"}
	}
	return fmt.Errorf("read data set %s: %w", repo, err)
}
