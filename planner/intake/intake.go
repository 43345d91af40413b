// Package intake reads what the outside says about a target: a paper from
// arXiv's API and pages, a model from the hub, and the links to code that
// anybody states, ranked by who states them.
//
// Everything is read through one guarded client (planner/fetch). A primary
// source that fails is an error; a secondary one (the HTML page, the hub's
// page of the paper, an aggregator, a link that is looked at) is a warning.
// Text from outside is data: it is stripped of markup and of characters that a
// terminal would obey, and nothing in it is ever followed as an instruction.
//
// # Sources of a paper
//
//  1. arXiv's Atom API gives the metadata and turns "latest" into a version.
//     Where it cannot be had, the /abs page does.
//  2. The /html page of that version gives passages (the text claims are read
//     from) and the links the authors state.
//  3. The hub's page of the paper, its lists of models, datasets and spaces.
//  4. alphaXiv, only when the authors state no code.
//  5. The overlay of an offline mirror.
package intake

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// Client is what the package needs of [fetch.Client].
type Client interface {
	Get(ctx context.Context, r fetch.Request) (*fetch.Response, error)
	URL(s fetch.Site, path string, query url.Values) (string, error)
	Transport() http.RoundTripper
	Overlay() fetch.Overlay
}

// Config says how to read. Only Client is needed.
type Config struct {
	Client Client
	// MaxPage caps one HTML page in decompressed bytes, 0 means 16 MiB.
	MaxPage int64
	// MaxText caps the passages of a paper in bytes, 0 means 1 MiB.
	MaxText int
	// UserAgent is the name that robots.txt is asked for, empty means
	// "repromill".
	UserAgent string
}

// Intake reads papers and models. It is safe for concurrent use.
type Intake struct {
	cfg    Config
	client Client
}

// New returns an Intake.
func New(cfg Config) *Intake {
	if cfg.MaxPage <= 0 {
		cfg.MaxPage = 16 << 20
	}
	if cfg.MaxText <= 0 {
		cfg.MaxText = 1 << 20
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "repromill"
	}
	return &Intake{cfg: cfg, client: cfg.Client}
}

// Paper is what is known about a paper.
type Paper struct {
	spec.Paper
	// Passages are the abstract and the paragraphs, tables and captions of the
	// paper in reading order, as plain text.
	Passages []Passage
	// Links are the repositories that somebody states to be this paper's code,
	// best first. None may exist.
	Links []spec.Candidate
	// Mentions are repositories that the paper names without saying that they
	// are its code: tools, baselines, references. They rank behind all Links
	// and are evidence, not choices.
	Mentions []spec.Candidate
	Facts    []spec.Fact
	Warnings []spec.Warning
}

// Passage is a piece of the paper's text.
type Passage struct {
	Where string // "abstract", "section 3.1 ¶2", "table 2", "figure 4 caption", "footnote 1"
	Text  string // one line; a table has one line per row, with " | " between cells
	URL   string // the page, with the fragment of the place where it has one
	Hash  string // SHA-256 of the page, lower-case hex
}

// source is a document that something was read from.
type source struct {
	url, hash string
	file      string // of a folder, in place of an address
}

func (s source) evidence(field, quote string) spec.Evidence {
	return spec.Evidence{URL: s.url, File: s.file, Field: field, Hash: s.hash, Quote: shorten(quote, maxQuote)}
}

// maxQuote is the longest quote of an Evidence in bytes; the document allows
// 300 characters.
const maxQuote = 300

// reading collects what a Paper is made of.
type reading struct {
	paper *Paper
	links linkSet
}

func (r *reading) warn(code, message string, ev ...spec.Evidence) {
	r.paper.Warnings = append(r.paper.Warnings, spec.Warning{Code: code, Message: message, Evidence: ev})
}

func (r *reading) fact(name, value string, ev ...spec.Evidence) {
	if value != "" {
		r.paper.Facts = append(r.paper.Facts, spec.Fact{Name: name, Value: value, Kind: spec.Published, Evidence: ev})
	}
}

// Paper reads the paper with an arXiv id. An empty version means the latest;
// the version that was found stands in the result.
//
// Errors: [*NotFoundError] when arXiv has no such paper or version,
// [*ThrottledError] and [*AnswerError] when it did not say, those of the
// client, and [*target.Error] for what is no id.
func (in *Intake) Paper(ctx context.Context, id, version string) (*Paper, error) {
	id, version, err := target.ParseArXiv(id + version)
	if err != nil {
		return nil, err
	}
	r := &reading{paper: &Paper{}}
	if err := in.metadata(ctx, r, id, version); err != nil {
		return nil, fmt.Errorf("read paper %s%s: %w", id, version, err)
	}
	p := r.paper
	p.URL = "https://arxiv.org/abs/" + p.ID + p.Version
	if withdrawnRE.MatchString(p.Comment) {
		r.warn("withdrawn", "the paper's comment says that it was withdrawn: "+shorten(p.Comment, maxQuote), p.Evidence...)
	}
	src := source{}
	if len(p.Evidence) > 0 {
		src = source{url: p.Evidence[0].URL, hash: p.Evidence[0].Hash}
	}
	if text := plainTeX(p.Abstract); text != "" {
		p.Passages = append(p.Passages, Passage{Where: "abstract", Text: text, URL: p.URL, Hash: src.hash})
	}
	r.links.text(plainTeX(p.Comment), place{src: src, field: "comment", where: "the comments field", zone: zoneComment})
	r.links.text(plainTeX(p.Abstract), place{src: src, field: "summary", where: "the abstract", zone: zoneAbstract})

	in.html(ctx, r)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in.hubPaper(ctx, r)
	if !r.links.authorStated() {
		in.alphaXiv(ctx, r)
	}
	in.overlay(r)
	in.followOthers(ctx, r)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.statedOnHub()
	r.links.named(p.Title)
	p.Links, p.Mentions = r.links.ranked(func(c *link) { in.look(ctx, r, c) })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, l := range r.links.projectPages() {
		r.fact("project_page", l.url, l.evidence)
	}
	return p, nil
}

// metadata fills the paper from the API, or from the /abs page when the API
// cannot be had.
func (in *Intake) metadata(ctx context.Context, r *reading, id, version string) error {
	err := in.api(ctx, r, id, version)
	if err == nil || isNotFound(err) || ctx.Err() != nil {
		return err
	}
	if absErr := in.abs(ctx, r, id, version); absErr != nil {
		if isNotFound(absErr) {
			return absErr
		}
		return fmt.Errorf("%w (the page /abs/%s%s did not help: %s)", err, id, version, absErr)
	}
	r.warn("arxiv_api_unavailable", "the metadata were read from the abstract page: "+err.Error())
	return nil
}

// overlay adds the links of an offline mirror.
func (in *Intake) overlay(r *reading) {
	for i, l := range in.client.Overlay().Links {
		if l.Arxiv != r.paper.ID {
			continue
		}
		ev := spec.Evidence{URL: l.URL, Field: fmt.Sprintf("overlay.json /links/%d", i), Quote: shorten(cleanText(l.Note), maxQuote)}
		r.links.add(l.URL, link{
			statedBy: "mirror", score: scoreMirror, reason: "added by the offline mirror, not stated by the paper",
			note: cleanText(l.Note), simulated: l.Simulated, evidence: []spec.Evidence{ev},
		})
	}
}

func joinAuthors(names []string) []string {
	var out []string
	for _, n := range names {
		if n = cleanText(n); n != "" {
			out = append(out, n)
		}
	}
	return out
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
