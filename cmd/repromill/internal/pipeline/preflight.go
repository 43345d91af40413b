package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/planner"
	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
)

// maxLooks bounds the addresses that one preflight looks at.
const maxLooks = 60

// preflight looks at every address that the chosen runs need: the selected
// ones, and the minimal run where none is. What it finds is data of the plan,
// which leaves its hash as it is; a run that needs what is gone or closed
// is marked so, before anything is spent on it.
func (p *Pipeline) preflight(ctx context.Context, plan *spec.Plan, emit Emit) error {
	list := needed(plan)
	var wg sync.WaitGroup
	turns := make(chan struct{}, 4)
	var mu sync.Mutex
	done := 0
	for i := range list {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if f := &list[i]; f.URL != "" && i < maxLooks {
				p.look(ctx, f)
			} else if f.Reason == "" {
				f.Status, f.Reason = "not_checked", fmt.Sprintf("more than %d addresses", maxLooks)
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			emit(runner.StagePlan, runner.Progress, map[string]any{"done": done, "total": len(list), "unit": "addresses", "message": list[i].Name})
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	plan.Preflight = list
	for i := range list {
		mark(plan, &list[i])
	}
	planner.Flags(plan)
	return nil
}

// chosen are the runs that would be executed.
func chosen(plan *spec.Plan) (out []*spec.Run) {
	any := slices.ContainsFunc(plan.Runs, func(r spec.Run) bool { return r.Selected })
	for i := range plan.Runs {
		if r := &plan.Runs[i]; r.Selected || !any && r.Kind == "minimal" {
			out = append(out, r)
		}
	}
	return out
}

var (
	urlRE    = regexp.MustCompile(`https?://[^\s'"<>()\[\]{}|\\^]+`)
	hubIDRE  = regexp.MustCompile(`^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*$`)
	gitURLRE = regexp.MustCompile(`^(https://[^@#\s]+?)(?:\.git)?(?:@[^@/\s#]+)?(?:#.*)?$`)
)

// needed lists what the chosen runs fetch, each address once.
func needed(plan *spec.Plan) (out []spec.Preflight) {
	add := func(name, at, run, why string) {
		at = strings.TrimRight(at, ".,;:")
		for i := range out {
			if f := &out[i]; at != "" && f.URL == at || at == "" && f.URL == "" && f.Name == name {
				if run != "" && !slices.Contains(f.Runs, run) {
					f.Runs = append(f.Runs, run)
				}
				return
			}
		}
		f := spec.Preflight{Name: name, URL: at, Status: "not_checked", Reason: why}
		if run != "" {
			f.Runs = []string{run}
		}
		out = append(out, f)
	}
	runs := chosen(plan)
	for _, r := range runs {
		for _, a := range r.Assets {
			switch {
			case a.Access == "in_repo" || a.Access == "bound":
			case a.URL == "":
				add(a.Name, "", r.ID, "its address is not known from the source")
			default:
				add(a.Name, a.URL, r.ID, "")
			}
		}
		words := slices.Clone(r.Argv)
		for _, s := range r.Setup {
			words = append(words, s.Argv...)
			if id, at := hubDownload(s.Argv); at != "" {
				add(id, at, r.ID, "")
			}
		}
		if r.Script != nil {
			words = append(words, r.Script.Text)
		}
		for _, w := range words {
			for _, at := range urlRE.FindAllString(w, -1) {
				add(lastPart(at), at, r.ID, "")
			}
		}
		for _, b := range plan.Bindings {
			if b.URL != "" && slices.Contains(b.Runs, r.ID) {
				add(b.Name, b.URL, r.ID, "")
			}
		}
	}
	if len(runs) == 0 {
		return out
	}
	for _, x := range plan.Environment.Indexes {
		if strings.HasPrefix(x.URL, "http") {
			add("packages", x.URL, "", "")
		}
	}
	for _, q := range plan.Environment.Requirements {
		if m := gitURLRE.FindStringSubmatch(strings.TrimPrefix(urlIn(q.Spec), "git+")); m != nil {
			add(lastPart(m[1]), m[1], "", "")
		}
	}
	return out
}

// urlIn is the address in a requirement, with "git+" before it where it has
// that.
func urlIn(s string) string {
	for _, w := range strings.Fields(s) {
		if strings.HasPrefix(w, "git+https://") || strings.HasPrefix(w, "https://") {
			return w
		}
	}
	return ""
}

func lastPart(at string) string {
	at, _, _ = strings.Cut(at, "?")
	at = strings.TrimRight(at, "/")
	return at[strings.LastIndexByte(at, '/')+1:]
}

// hubDownload is the repository that a command of the hub's own tools
// downloads, with its address.
func hubDownload(argv []string) (id, at string) {
	if len(argv) < 3 || argv[0] != "hf" && argv[0] != "huggingface-cli" || argv[1] != "download" {
		return "", ""
	}
	kind := ""
	for i, w := range argv[2:] {
		switch {
		case w == "--repo-type" && i+3 < len(argv) && argv[i+3] != "model":
			kind = argv[i+3] + "s/"
		case strings.HasPrefix(w, "--repo-type=") && !strings.HasSuffix(w, "=model"):
			kind = strings.TrimPrefix(w, "--repo-type=") + "s/"
		case id == "" && hubIDRE.MatchString(w):
			id = w
		}
	}
	if id == "" {
		return "", ""
	}
	return id, "https://huggingface.co/" + kind + id
}

// look fills in what one address gives.
func (p *Pipeline) look(ctx context.Context, f *spec.Preflight) {
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	f.Reason = ""
	if kind, id := hubRepo(f.URL); id != "" {
		p.lookHub(ctx, f, kind, id)
	} else {
		p.lookFile(ctx, f)
	}
	if f.Status != "not_checked" {
		at := now().UTC().Truncate(time.Second)
		f.CheckedAt = &at
	}
}

// hubRepo reads the address of a repository on the hub: its kind in the API,
// and its id; an empty id for an address of anything else.
func hubRepo(at string) (kind, id string) {
	u, err := url.Parse(at)
	if err != nil || u.Hostname() != "huggingface.co" && u.Hostname() != "hf.co" {
		return "", ""
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	kind = "models"
	if parts[0] == "datasets" || parts[0] == "spaces" {
		kind, parts = parts[0], parts[1:]
	}
	switch {
	case len(parts) == 1 && parts[0] != "", len(parts) == 2, len(parts) == 4 && parts[2] == "tree":
		return kind, strings.Join(parts[:min(2, len(parts))], "/")
	}
	return "", ""
}

// lookHub asks the hub's API for a repository, and where its files are behind
// conditions, whether the present token has accepted them.
func (p *Pipeline) lookHub(ctx context.Context, f *spec.Preflight, kind, id string) {
	ask := func(parts ...string) (*fetch.Response, error) {
		at, err := p.Client.URL(fetch.HF, fetch.Path(append([]string{"api", kind}, parts...)...), nil)
		if err != nil {
			return nil, err
		}
		return p.Client.Get(ctx, fetch.Request{URL: at, Accept: "application/json", MaxAge: -1})
	}
	parts := strings.Split(id, "/")
	res, err := ask(parts...)
	if err != nil {
		p.refused(f, err)
		return
	}
	f.HTTPStatus, f.Status = res.Status, "ok"
	var about struct {
		Gated       any   `json:"gated"` // false, "auto" or "manual"
		Disabled    bool  `json:"disabled"`
		UsedStorage int64 `json:"usedStorage"`
	}
	if err := json.Unmarshal(res.Body, &about); err != nil {
		f.Status, f.Reason = "unreachable", "the hub's answer cannot be read"
		return
	}
	f.Bytes = max(about.UsedStorage, 0)
	if about.Disabled {
		f.Status, f.Reason = "missing", "the hub has disabled it"
		return
	}
	if about.Gated == nil || about.Gated == false {
		return
	}
	if _, err := ask(append(parts, "auth-check")...); err != nil {
		p.refused(f, err)
		return
	}
	f.Reason = "its conditions are accepted by the account of the present token"
}

// lookFile asks for the head of a file.
func (p *Pipeline) lookFile(ctx context.Context, f *spec.Preflight) {
	at := f.URL
	if u, err := url.Parse(at); err == nil && (u.Hostname() == "huggingface.co" || u.Hostname() == "hf.co") {
		at = strings.Replace(at, "/blob/", "/resolve/", 1) // the page about a file; the file itself
	}
	got, err := p.Client.Probe(ctx, at)
	if err != nil {
		p.refused(f, err)
		return
	}
	f.HTTPStatus, f.Bytes = got.Status, max(got.Bytes, 0)
	switch {
	case got.Status < 300 && login(at, got.FinalURL):
		f.Status, f.Reason = "gated", "it sends visitors to a login at "+host(got.FinalURL)
	case got.Status < 300:
		f.Status = "ok"
	default:
		f.Status, f.Reason = closed(got.Status, got.Header)
	}
}

var loginRE = regexp.MustCompile(`(?i)/(?:log-?in|sign-?in|service-?login|sso|authorize)\b`)

// login says that an address leads to a page that asks who one is.
func login(from, to string) bool {
	return host(to) == "accounts.google.com" || loginRE.MatchString(to) && !loginRE.MatchString(from)
}

func host(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// refused says what an error of asking means for the asset.
func (p *Pipeline) refused(f *spec.Preflight, err error) {
	var (
		status  *fetch.StatusError
		blocked *fetch.BlockedError
		mirror  *fetch.NotInMirrorError
	)
	switch {
	case errors.As(err, &mirror):
		f.Status, f.Reason = "not_checked", "the offline mirror is in use, and nothing is asked"
	case errors.As(err, &blocked):
		f.Status, f.Reason = "not_checked", blocked.Reason
	case errors.As(err, &status):
		f.HTTPStatus = status.Status
		f.Status, f.Reason = closed(status.Status, status.Header)
	default:
		f.Status, f.Reason = "unreachable", err.Error()
	}
}

// closed reads a status other than success, with what the hub says beside it
// (X-Error-Code). The hub answers 401 for what is not there as well, so that
// nobody learns the names of private repositories.
func closed(status int, h http.Header) (outcome, reason string) {
	code, said := h.Get("X-Error-Code"), h.Get("X-Error-Message")
	switch {
	case code == "GatedRepo" || code == "GatedEntry":
		return "gated", first(said, "its conditions have to be accepted on its page, and HF_TOKEN be a token of that account")
	case code == "RepoNotFound" || code == "EntryNotFound" || code == "RevisionNotFound":
		return "missing", first(said, "the hub does not have it, or it is private and the present token does not open it")
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired || status == http.StatusPaymentRequired:
		return "gated", first(said, fmt.Sprintf("it is not open: %d %s", status, http.StatusText(status)))
	case status == http.StatusNotFound || status == http.StatusGone:
		return "missing", first(said, fmt.Sprintf("%d %s", status, http.StatusText(status)))
	}
	return "unreachable", first(said, fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// mark writes what is gone or closed into the runs that need it.
func mark(plan *spec.Plan, f *spec.Preflight) {
	if f.Status == "unreachable" {
		plan.Warnings = append(plan.Warnings, spec.Warning{Code: "unreachable", Message: fmt.Sprintf("%s (%s) did not answer: %s", f.Name, f.URL, f.Reason)})
	}
	if f.Status != "gated" && f.Status != "missing" {
		return
	}
	if len(f.Runs) == 0 {
		plan.Warnings = append(plan.Warnings, spec.Warning{Code: "not_available", Message: fmt.Sprintf("%s, which the environment needs, is %s: %s", f.URL, f.Status, f.Reason)})
	}
	status := map[string]string{"gated": "gated", "missing": "manual_data"}[f.Status]
	for i := range plan.Runs {
		r := &plan.Runs[i]
		if !slices.Contains(f.Runs, r.ID) || slices.ContainsFunc(r.Needs, func(n spec.Need) bool { return n.Name == f.Name }) {
			continue
		}
		n := spec.Need{What: "checkpoint", Name: f.Name, Status: status, Reason: fmt.Sprintf("%s is %s at %s: %s", f.Name, f.Status, f.URL, f.Reason)}
		for j := range r.Assets {
			if a := &r.Assets[j]; a.Name == f.Name {
				n.What, a.Access = a.Kind, f.Status
			}
		}
		r.Needs, r.Reasons = append(r.Needs, n), append(r.Reasons, n.Reason)
		if r.Status == "auto" {
			r.Status = status
		}
	}
}
