package fetch

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Site names a place that may be asked.
type Site string

// The sites of the table.
const (
	ArxivAPI   Site = "arxiv_api"  // export.arxiv.org/api
	Arxiv      Site = "arxiv"      // arxiv.org: /abs, /html, /pdf, /list
	Ar5iv      Site = "ar5iv"      // ar5iv.labs.arxiv.org
	HF         Site = "hf"         // huggingface.co
	GitHub     Site = "github"     // github.com
	GitHubAPI  Site = "github_api" // api.github.com
	GitHubRaw  Site = "github_raw" // raw.githubusercontent.com
	GitLab     Site = "gitlab"     // gitlab.com
	Bitbucket  Site = "bitbucket"  // bitbucket.org
	Codeberg   Site = "codeberg"   // codeberg.org
	AlphaXiv   Site = "alphaxiv"   // api.alphaxiv.org
	CatalyzeX  Site = "catalyzex"  // www.catalyzex.com
	OpenReview Site = "openreview" // openreview.net

	OpenReviewAPI Site = "openreview_api" // api2.openreview.net
)

// Limit is how often a site may be asked, over all processes that share a
// cache folder. The zero value of a field means no such limit.
type Limit struct {
	// Every is the least time between the end of one request and the
	// beginning of the next.
	Every time.Duration
	// Conns is how many requests may be under way at once.
	Conns int
	// Burst requests may be sent at once; they grow back evenly in Per.
	Burst int
	Per   time.Duration
}

// bucket is a class of requests to a site that is limited by itself.
type bucket struct {
	name   string
	prefix string // of the path
	infix  string // of the path
	limit  Limit
}

func (b bucket) matches(path string) bool {
	return strings.HasPrefix(path, b.prefix) && strings.Contains(path, b.infix)
}

// site is a row of the table.
type site struct {
	name    Site
	host    string
	aliases []string
	// paths are the path prefixes that may be asked; empty means all.
	paths []string
	// redirects are patterns of further hosts that this site may send us to.
	redirects []string
	buckets   []bucket // the first that matches counts
	// throttle is a body with status 200 that means 429.
	throttle string
}

func (s *site) bucketOf(path string) bucket {
	for _, b := range s.buckets {
		if b.matches(path) {
			return b
		}
	}
	return bucket{limit: modest}
}

func (s *site) admits(path string) bool {
	return len(s.paths) == 0 || slices.ContainsFunc(s.paths, func(p string) bool {
		return path == strings.TrimSuffix(p, "/") || strings.HasPrefix(path, p)
	})
}

// throttled tells whether a successful answer is really a refusal.
func (s *site) throttled(status int, head []byte) bool {
	return s.throttle != "" && status == http.StatusOK &&
		bytes.HasPrefix(bytes.TrimSpace(head), []byte(s.throttle))
}

// modest is the limit of a site that states none.
var modest = Limit{Every: time.Second, Conns: 1}

// sites is the allow-list.
//
// arXiv: one request in three seconds and one connection, counted over all
// machines of a user (arxiv-docs source/help/api/tou.md); robots.txt of
// arxiv.org asks for 15 s, allows /abs /pdf /html /list and disallows /e-print,
// /src and /api. Throttling may come as plain text with status 200.
//
// The hub counts fixed windows of five minutes: 500 API calls, 3000 file
// resolutions and 100 pages without an account (hub-docs rate-limits.md). A
// bucket of b that regrows at r per second lets at most b+300r through in a
// window, which is kept under those; RateLimit headers tighten it.
//
// GitHub's API allows 60 calls an hour without an account.
var sites = []site{
	{
		name: ArxivAPI, host: "export.arxiv.org", paths: []string{"/api/"},
		buckets:  []bucket{{limit: Limit{Every: 3 * time.Second, Conns: 1}}},
		throttle: "Rate exceeded",
	},
	{
		name: Arxiv, host: "arxiv.org", aliases: []string{"www.arxiv.org"},
		paths:    []string{"/abs/", "/html/", "/pdf/", "/list/", "/robots.txt"},
		buckets:  []bucket{{limit: Limit{Every: 15 * time.Second, Conns: 1}}},
		throttle: "Rate exceeded",
	},
	{
		name: Ar5iv, host: "ar5iv.labs.arxiv.org", aliases: []string{"ar5iv.org", "www.ar5iv.org"},
		buckets: []bucket{{limit: Limit{Every: 3 * time.Second, Conns: 1}}},
	},
	{
		name: HF, host: "huggingface.co", aliases: []string{"www.huggingface.co", "hf.co"},
		redirects: []string{
			"cdn-lfs*.hf.co", "cdn-lfs*.huggingface.co", "*.xethub.hf.co", "*.cdn.hf.co",
		},
		buckets: []bucket{
			{name: "resolvers", infix: "/resolve/", limit: Limit{Conns: 4, Burst: 1000, Per: 170 * time.Second}},
			{name: "api", prefix: "/api/", limit: Limit{Conns: 4, Burst: 200, Per: 200 * time.Second}},
			{name: "pages", limit: Limit{Conns: 2, Burst: 40, Per: 200 * time.Second}},
		},
	},
	{
		name: GitHub, host: "github.com", aliases: []string{"www.github.com"},
		redirects: []string{"codeload.github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"},
		buckets:   []bucket{{limit: Limit{Every: time.Second, Conns: 2}}},
	},
	{
		name: GitHubAPI, host: "api.github.com",
		buckets: []bucket{{limit: Limit{Conns: 1, Burst: 30, Per: time.Hour}}},
	},
	{
		name: GitHubRaw, host: "raw.githubusercontent.com",
		buckets: []bucket{{limit: Limit{Every: 200 * time.Millisecond, Conns: 4}}},
	},
	{name: GitLab, host: "gitlab.com", aliases: []string{"www.gitlab.com"}},
	{name: Bitbucket, host: "bitbucket.org", aliases: []string{"www.bitbucket.org"}},
	{name: Codeberg, host: "codeberg.org", aliases: []string{"www.codeberg.org"}},
	{name: AlphaXiv, host: "api.alphaxiv.org"},
	{name: CatalyzeX, host: "www.catalyzex.com", aliases: []string{"catalyzex.com"}},
	{name: OpenReview, host: "openreview.net", aliases: []string{"www.openreview.net"}},
	{name: OpenReviewAPI, host: "api2.openreview.net"},
}

// matchHost reports whether host fits a pattern with at most one star. The
// star stands for any run of letters, digits, dots and hyphens.
func matchHost(pattern, host string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == host
	}
	if len(host) < len(before)+len(after) || !strings.HasPrefix(host, before) || !strings.HasSuffix(host, after) {
		return false
	}
	for _, r := range host[len(before) : len(host)-len(after)] {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.') {
			return false
		}
	}
	return true
}
