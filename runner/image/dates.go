package image

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/image/problem"
	"github.com/repromill/repromill/runner/pip"
)

// dates bound an environment where the index does not say when files were
// uploaded: what was resolved is compared with the date that the index's server
// gives its files, and what is too new is resolved again below it.
type dates struct {
	on      bool
	bounds  map[string]string // "name<=version" by name
	unknown []string          // packages whose files have no date of use
	rounds  int
	dropped string // why the bounds could not be kept
}

// maxRounds bounds how often an environment is resolved again.
const maxRounds = 4

// undated gives up the upload times of an index that has none.
func (j *job) undated(p *problem.Problem) bool {
	if j.st.unbounded {
		return false
	}
	j.st.unbounded, j.st.dates.on = true, true
	fmt.Fprintf(j.log, "::repromill:: the package index does not say when files were uploaded (%s)\n", p.Package)
	return true
}

// boundByDates looks at what was resolved; it reports whether that has to be
// done again.
func (j *job) boundByDates(ctx context.Context) (bool, error) {
	d := &j.st.dates
	if !d.on || d.dropped != "" || d.rounds == maxRounds {
		return false, nil
	}
	d.rounds++
	lock, err := os.ReadFile(filepath.Join(j.dir, "tmp", "repromill-lock.txt"))
	if err != nil {
		return false, nil // nothing was resolved
	}
	var mu sync.Mutex
	changed := false
	d.unknown = nil
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for name, version := range locked(string(lock)) {
		l := j.r.declared(name)
		if _, _, pinned := pip.Pin(or(j.st.edited[name], l.Text)); pinned {
			continue
		}
		g.Go(func() error {
			best, known, err := j.ofTheTime(gctx, name, version)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !known:
				d.unknown = append(d.unknown, name)
			case best != version:
				d.bounds[name], changed = name+"<="+best, true
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return false, fmt.Errorf("look for release dates: %w", err)
	}
	slices.Sort(d.unknown)
	return changed, nil
}

// locked are the versions of a lock by name.
func locked(lock string) map[string]string {
	out := map[string]string{}
	for l := range strings.Lines(lock) {
		name, rest, ok := strings.Cut(strings.TrimSpace(l), "==")
		if version, _, _ := strings.Cut(rest, " "); ok && !strings.HasPrefix(name, "#") {
			name, _, _ = strings.Cut(name, "[")
			out[pip.Normalise(name)] = version
		}
	}
	return out
}

// ofTheTime is the version to bound a package to: the given one where it is of
// the time, else the newest that is.
func (j *job) ofTheTime(ctx context.Context, name, version string) (best string, known bool, err error) {
	list, err := j.releases(ctx, name)
	if err != nil {
		return "", false, err
	}
	bound := *j.r.req.Environment.ExcludeNewer
	when := func(r *pip.Release) time.Time {
		if r.Uploaded.IsZero() {
			r.Uploaded = j.modified(ctx, r.Link)
		}
		return r.Uploaded
	}
	v, _ := pip.ParseVersion(version)
	mine := find(list, v)
	if mine == nil || when(mine).IsZero() {
		return "", false, ctx.Err()
	}
	if !mine.Uploaded.After(bound) {
		return version, true, nil
	}
	list = slices.DeleteFunc(list, func(r pip.Release) bool {
		return r.Version.Pre() || r.Yanked || r.Version.Compare(v) > 0 || !usable(r, j.st.python, len(r.Wheels) > 0)
	})
	i := sort.Search(len(list), func(i int) bool { t := when(&list[i]); return t.IsZero() || t.After(bound) })
	if ctx.Err() != nil || i == 0 {
		return "", false, ctx.Err() // a copy that was made at once has one date for all
	}
	return list[i-1].Version.Text, true, nil
}

// modified is the Last-Modified of a file, which mirrors keep from where they
// have it; zero where the server does not say it.
func (j *job) modified(ctx context.Context, link string) time.Time {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, link, nil)
	if err != nil || link == "" {
		return time.Time{}
	}
	resp, err := j.b.cfg.HTTP.Do(req)
	if err != nil {
		return time.Time{}
	}
	defer resp.Body.Close()
	t, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil || resp.StatusCode != http.StatusOK {
		return time.Time{}
	}
	return t
}

// dropDates gives the bounds up when nothing can be installed with them.
func (j *job) dropDates(text string) bool {
	d := &j.st.dates
	if len(d.bounds) == 0 {
		return false
	}
	d.bounds, d.dropped = map[string]string{}, or(pip.Complaint(strings.Split(text, "\n")), "nothing could be installed with them")
	return true
}

// datesDeviation says what came of the bounding date.
func (j *job) datesDeviation() []spec.Deviation {
	d := &j.st.dates
	if !d.on {
		return nil
	}
	used, reason := "bounded by the dates of files", "the package index does not say when files were uploaded, and its server when they were modified"
	switch {
	case d.dropped != "":
		used, reason = "unbounded", "the package index does not say when files were uploaded; with the dates of its files: "+d.dropped
	case d.rounds == 0 || len(d.unknown) > 0 && len(d.bounds) == 0:
		used, reason = "unbounded", "the package index does not say when files were uploaded"
		if len(d.unknown) > 0 {
			reason += " (" + strings.Join(d.unknown, ", ") + ")"
		}
	case len(d.unknown) > 0:
		used += ", unbounded: " + strings.Join(d.unknown, ", ")
	}
	return []spec.Deviation{{What: "exclude_newer", Declared: j.r.req.Environment.ExcludeNewer.UTC().Format(time.DateOnly), Used: used, Reason: reason}}
}
