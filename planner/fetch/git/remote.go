package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

const (
	maxAttempts   = 4
	maxRetryAfter = time.Minute
	maxRedirects  = 3
	maxWants      = 200    // refs asked for when a commit is looked for
	searchDepth   = 10_000 // commits looked at for a short id
)

// remoteSource is a repository behind smart HTTP, protocol version 0
// (git's Documentation/gitprotocol-http.txt and gitprotocol-pack.txt).
type remoteSource struct {
	job    *job
	remote *remote
	adv    *packp.AdvRefs // of the last contact
	// shallow lists the commits of the last pack whose parents it does not hold.
	shallow []string
}

func (s *remoteSource) name() string { return s.remote.name }

// connect opens a session and reads the advertisement.
func (s *remoteSource) connect(ctx context.Context, w *wire) (transport.UploadPackSession, *packp.AdvRefs, error) {
	client := &http.Client{Transport: w, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}}
	ep, err := transport.NewEndpoint(s.remote.url.String())
	if err != nil {
		return nil, nil, fmt.Errorf("read address: %w", err)
	}
	var auth transport.AuthMethod
	if s.job.c.cfg.Token != nil {
		if token := s.job.c.cfg.Token(s.remote.host); token != "" {
			auth = &githttp.BasicAuth{Username: "x-access-token", Password: token}
		}
	}
	session, err := githttp.NewClient(client).NewUploadPackSession(ep, auth)
	if err != nil {
		return nil, nil, fmt.Errorf("open session: %w", err)
	}
	adv, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return nil, nil, s.refusal(w, err)
	}
	s.adv = adv
	return session, adv, nil
}

// tokenVariable is where the tools of a host look for its token.
var tokenVariable = map[string]string{"github.com": "GITHUB_TOKEN", "gitlab.com": "GITLAB_TOKEN"}

// refusal turns what a server answers on first contact into an error for the
// user where it is final.
func (s *remoteSource) refusal(w *wire, err error) error {
	final := func(why, fix string) error { return &RepoError{Repo: s.remote.name, Why: why, Fix: fix, Gone: true} }
	private := "check the address; of a private repository give the folder that you cloned it to"
	if name := tokenVariable[s.remote.host]; name != "" {
		private += ", or set " + name
	}
	var dns *net.DNSError
	switch {
	case w.first(nil) != nil:
		return w.first(err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return final("no host of the name "+s.remote.host+" was found", "check the address and the network")
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return final("not found", private)
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return final("not found, or it needs a token", private)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return final("access is refused", private)
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return final("it has no commits", "check the address")
	case w.answered(http.StatusGone), w.answered(http.StatusUnavailableForLegalReasons):
		return final("it was taken down", "look for a fork or an archive of it")
	case w.answered(http.StatusOK):
		return final("the server's answer is not git's", "check the address")
	}
	return err
}

func (s *remoteSource) resolve(ctx context.Context, ref string) (r resolved, err error) {
	if isCommitID(ref) {
		id := strings.ToLower(ref)
		return resolved{want: id, commit: id, ref: ref}, nil
	}
	found := false
	err = s.attempt(ctx, func(w *wire) error {
		_, adv, err := s.connect(ctx, w)
		if err != nil {
			return err
		}
		r, found, err = lookup(adv, s.remote.name, ref)
		return err
	})
	if err != nil || found {
		return r, err
	}
	return s.search(ctx, ref)
}

// search finds a short commit id in the recent history of the branches: it asks
// for commits without trees or files.
func (s *remoteSource) search(ctx context.Context, ref string) (r resolved, err error) {
	fail := func(why string, have ...string) (resolved, error) {
		return r, &RefError{Repo: s.remote.name, Ref: ref, Why: why, Have: have}
	}
	if !s.adv.Capabilities.Supports(capability.Filter) || !s.adv.Capabilities.Supports(capability.Shallow) {
		return fail("no branch or tag points to it, and this server cannot be searched for it")
	}
	st, err := newStage(s.job.c.path("tmp"))
	if err != nil {
		return r, err
	}
	defer func() { _ = st.remove() }()
	var res *workResult
	err = s.attempt(ctx, func(w *wire) error {
		q := query{wants: s.tips(), depth: searchDepth, filter: packp.FilterTreeDepth(0)}
		var err error
		res, _, err = s.receive(ctx, w, q, &workRequest{Op: opFind, stage: st, Dir: st.dir, Want: strings.ToLower(ref), Deep: true})
		return err
	})
	switch {
	case err != nil:
		return r, err
	case len(res.Matches) == 0:
		return fail(fmt.Sprintf("it is not among the last %d commits of the branches", searchDepth))
	case len(res.Matches) > 1:
		return fail("several commits start with it", res.Matches...)
	}
	return resolved{want: res.Matches[0], commit: res.Matches[0], ref: ref}, nil
}

// tips lists what branches, then tags, point to, the default branch first.
func (s *remoteSource) tips() []plumbing.Hash {
	var tips []plumbing.Hash
	if s.adv.Head != nil {
		tips = append(tips, *s.adv.Head)
	}
	names := slices.Sorted(maps.Keys(s.adv.References))
	for _, kind := range []string{"refs/heads/", "refs/tags/"} {
		for _, name := range names {
			if strings.HasPrefix(name, kind) && len(tips) < maxWants {
				tips = append(tips, s.adv.References[name])
			}
		}
	}
	return tips
}

func (s *remoteSource) extract(ctx context.Context, r resolved, st *stage, prefix string) (*workResult, error) {
	return s.unpack(ctx, r, &workRequest{Op: opUnpack, stage: st, Dir: st.dir, Prefix: prefix})
}

// unpack fetches a commit: alone if the server gives it out, else within ever
// more of the branches' history.
func (s *remoteSource) unpack(ctx context.Context, r resolved, req *workRequest) (res *workResult, err error) {
	want := plumbing.NewHash(r.want)
	req.Want = r.want
	req.Limits = s.job.budget.left()
	err = s.attempt(ctx, func(w *wire) (err error) {
		res, _, err = s.receive(ctx, w, query{wants: []plumbing.Hash{want}, depth: 1}, req)
		return err
	})
	if !refusedWant(err) {
		return res, err
	}
	req.Deep = true
	for _, depth := range []int{50, 1000, 0} {
		whole := false
		err = s.attempt(ctx, func(w *wire) (err error) {
			res, whole, err = s.receive(ctx, w, query{wants: s.tips(), depth: depth}, req)
			return err
		})
		var missing *missingCommitError
		if !errors.As(err, &missing) {
			return res, err
		}
		if whole {
			break
		}
	}
	return nil, &RefError{Repo: s.remote.name, Ref: cmp.Or(r.ref, r.want), Why: "the commit is on none of its branches and tags"}
}

// refusedWant reports an answer of upload-pack to an id it does not give out.
// go-git keeps only its text.
func refusedWant(err error) bool {
	var missing *missingCommitError
	return errors.As(err, &missing) || err != nil &&
		(strings.Contains(err.Error(), "not our ref") || strings.Contains(err.Error(), "unadvertised object"))
}

// query is what is asked of a server.
type query struct {
	wants  []plumbing.Hash
	depth  int // commits; 0 is all
	filter packp.Filter
}

// receive sends a query and has a worker unpack the answer. whole says that the
// history came complete.
func (s *remoteSource) receive(ctx context.Context, w *wire, q query, req *workRequest) (_ *workResult, whole bool, err error) {
	session, adv, err := s.connect(ctx, w)
	if err != nil {
		return nil, false, err
	}
	ask := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	ask.Wants = q.wants
	if adv.Capabilities.Supports(capability.NoProgress) {
		_ = ask.Capabilities.Set(capability.NoProgress)
	}
	if q.depth > 0 && adv.Capabilities.Supports(capability.Shallow) {
		_ = ask.Capabilities.Set(capability.Shallow)
		ask.Depth = packp.DepthCommits(q.depth)
	}
	if q.filter != "" {
		_ = ask.Capabilities.Set(capability.Filter)
		ask.Filter = q.filter
	}
	s.job.progress.report(Progress{Repo: s.remote.name, Phase: "receive"})
	ctx2, hangUp := context.WithCancel(ctx)
	defer hangUp()
	req.hangUp = hangUp
	answer, err := session.UploadPack(ctx2, ask)
	if err != nil {
		return nil, false, w.first(err)
	}
	defer func() { _ = answer.Close() }()
	w.preamble.Store(false)
	s.shallow = nil
	for _, h := range answer.Shallows {
		s.shallow = append(s.shallow, h.String())
	}
	whole = len(s.shallow) == 0
	pack := &noted{Reader: demux(ask.Capabilities, answer)}
	res, err := s.job.c.work(ctx, req, pack, s.job.progress.report)
	if err != nil && pack.err != nil && !errors.Is(pack.err, context.Canceled) {
		err = w.first(fmt.Errorf("receive pack: %w", pack.err))
	}
	return res, whole, err
}

// demux takes the pack out of the side band, where there is one.
func demux(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// noted remembers why a stream ended early: the worker only sees that it did.
type noted struct {
	io.Reader
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}

// attempt runs f until it succeeds, fails for good, or has had its tries.
func (s *remoteSource) attempt(ctx context.Context, f func(*wire) error) error {
	pause := time.Second
	for try := 1; ; try++ {
		w := &wire{c: s.job.c, repo: s.remote.name, budget: s.job.budget,
			onRead: func(n int64) { s.job.progress.report(Progress{Bytes: n}) }}
		err := f(w)
		if err == nil || try == maxAttempts || ctx.Err() != nil || !w.transient(err) {
			return err
		}
		wait := max(pause, min(w.retryAfter(s.job.c.cfg.Now()), maxRetryAfter))
		if err := s.job.c.cfg.Sleep(ctx, wait); err != nil {
			return err
		}
		pause *= 2
	}
}

// transient reports failures that another try may mend.
func (w *wire) transient(err error) bool {
	var (
		user    interface{ UserError() string }
		damaged *damagedError
		network net.Error
		op      *net.OpError
	)
	w.mu.Lock()
	raw, status := w.raw, w.status
	w.mu.Unlock()
	switch {
	case errors.As(err, &user):
		return false
	case errors.As(err, &damaged):
		return true
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return true
	}
	return errors.Is(raw, io.ErrUnexpectedEOF) || errors.As(raw, &op) || errors.As(raw, &network) && network.Timeout() ||
		errors.Is(raw, io.EOF)
}

// answered reports the status of the last response.
func (w *wire) answered(status int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.raw == nil && w.status == status
}

// retryAfter is how long the server asked to be left alone (RFC 9110, 10.2.3).
func (w *wire) retryAfter(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n, err := strconv.Atoi(w.after); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(w.after); err == nil {
		return t.Sub(now)
	}
	return 0
}
