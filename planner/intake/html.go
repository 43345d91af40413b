package intake

import (
	"context"

	"github.com/gocolly/colly/v2"

	"github.com/repromill/repromill/planner/target"
)

// html reads the HTML page of the version that was found. Papers from before
// late 2023, and some since, have none: then only the abstract is known.
func (in *Intake) html(ctx context.Context, r *reading) {
	p := r.paper
	var doc *document
	var from page
	err := in.collect(ctx, "/html/"+p.ID+p.Version, func(pg page, e *colly.HTMLElement) {
		from, doc = pg, readDocument(e.DOM.Nodes[0])
	})
	switch {
	case isNotFound(err), isMissingFromMirror(err), err == nil && doc.noHTML:
		r.warn("no_html", "arXiv has no HTML page of "+p.ID+p.Version+": only the abstract was read")
		return
	case err != nil:
		r.warn("html_unavailable", "the HTML page of "+p.ID+p.Version+" could not be read: "+shorten(cleanText(err.Error()), 400))
		return
	}
	if len(doc.blocks) == 0 {
		r.warn("html_unavailable", "the HTML page of "+p.ID+p.Version+" holds no text", from.source().evidence("body", ""))
		return
	}
	in.passages(r, from, doc)
}

// passages turns the blocks of a page into passages and links.
func (in *Intake) passages(r *reading, from page, doc *document) {
	p := r.paper
	src := from.source()
	base := "https://arxiv.org/html/" + p.ID + p.Version
	text, cut := len(p.Abstract), doc.cut
	for _, b := range doc.blocks {
		r.links.text(b.text, place{src: src, field: b.field, where: b.where, zone: b.zone, context: b.context})
		switch b.kind {
		case reference, front:
			continue
		case abstract:
			if p.Abstract != "" {
				continue
			}
		}
		if text += len(b.text); text > in.cfg.MaxText {
			cut = true
			continue
		}
		u := base
		if b.id != "" {
			u += "#" + b.id
		}
		p.Passages = append(p.Passages, Passage{Where: b.where, Text: b.text, URL: u, Hash: src.hash})
	}
	if cut {
		r.warn("passages_truncated", "the HTML page is longer than what is read of it: its end, or a long table, is missing", src.evidence("body", ""))
	}
	r.fact("html_page", base, src.evidence("html", ""))
}

// statedOnHub turns the links to the hub that the authors wrote into facts.
func (r *reading) statedOnHub() {
	seen := map[string]bool{}
	for _, l := range r.links.hub {
		name := map[string]string{target.HFModel: "linked_model", target.HFDataset: "linked_dataset", target.HFSpace: "linked_space"}[l.target.Kind]
		if l.own {
			name = "stated" + name[len("linked"):]
		}
		if key := name + l.target.ID; name != "" && !seen[key] {
			seen[key] = true
			r.fact(name, l.target.ID, l.evidence)
		}
	}
}
