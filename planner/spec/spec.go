// Package spec is the plan document: the only thing that passes from planning
// to running.
//
// A Plan is plain JSON. Anyone may write one by hand; the runner never asks who
// did. Every number that was not observed by this program carries the place it
// was read from ([Evidence]) and what kind of number it is ([Kind]).
//
// The package is a leaf: it imports the standard library only.
package spec

import "time"

// SchemaV1 names the version of the document's shape. A reader refuses any
// other value.
const SchemaV1 = "repromill.plan/v1"

// Kind says how a number came to be.
type Kind string

// The kinds of number, from the strongest to the weakest.
const (
	Measured  Kind = "measured"  // observed by this program in this run
	Published Kind = "published" // stated by somebody else, at a named place
	Derived   Kind = "derived"   // computed from measured or published numbers
	Estimated Kind = "estimated" // the output of a model, with an interval
	Assumed   Kind = "assumed"   // a default nobody stated
)

// Evidence is where a fact was read.
type Evidence struct {
	File  string `json:"file,omitempty"` // path in the source repository
	Line  int    `json:"line,omitempty"` // 1-based; 0 where a line means nothing
	URL   string `json:"url,omitempty"`
	Field string `json:"field,omitempty"` // CSS selector, JSON pointer or header name at URL
	Hash  string `json:"hash,omitempty"`  // SHA-256 of the content it was read from, lower-case hex
	Quote string `json:"quote,omitempty"` // the words themselves, at most 300 characters
}

// Plan is the whole document.
type Plan struct {
	Schema      string      `json:"schema"`
	Hash        string      `json:"hash"` // see [Plan.ComputeHash]
	CreatedBy   string      `json:"created_by,omitempty"`
	Target      Target      `json:"target"`
	Source      Source      `json:"source"`
	Paper       *Paper      `json:"paper,omitempty"`
	Model       *Model      `json:"model,omitempty"`
	Environment Environment `json:"environment"`
	Runs        []Run       `json:"runs"`
	Claims      []Claim     `json:"claims"`
	Suites      []Suite     `json:"suites,omitempty"`
	Bindings    []Binding   `json:"bindings,omitempty"`
	Preflight   []Preflight `json:"preflight,omitempty"`
	Estimates   []Estimate  `json:"estimates,omitempty"`
	Decisions   []Decision  `json:"decisions,omitempty"`
	Warnings    []Warning   `json:"warnings,omitempty"`
}

// Target is what the user pasted, after parsing (see planner/target).
type Target struct {
	Input    string `json:"input"`
	Kind     string `json:"kind"` // arxiv|hf_model|hf_dataset|hf_space|git|local|openreview
	ID       string `json:"id"`
	Version  string `json:"version,omitempty"`  // arXiv version, "v2"; concrete once resolved
	Revision string `json:"revision,omitempty"` // hub revision
	Path     string `json:"path,omitempty"`
	Ref      string `json:"ref,omitempty"` // git branch, tag or commit
	URL      string `json:"url,omitempty"` // canonical
}

// Source is the code that will run.
type Source struct {
	Repo       string      `json:"repo,omitempty"`   // https URL or absolute local path; empty when no code was found
	Commit     string      `json:"commit,omitempty"` // 40 hex digits
	Ref        string      `json:"ref,omitempty"`    // the name that was resolved to Commit
	CommitDate *time.Time  `json:"commit_date,omitempty"`
	Subdir     string      `json:"subdir,omitempty"`
	Submodules bool        `json:"submodules,omitempty"`
	StatedBy   string      `json:"stated_by,omitempty"`  // of the chosen candidate
	Note       string      `json:"note,omitempty"`       // of the chosen candidate
	Simulated  bool        `json:"simulated,omitempty"`  // of the chosen candidate
	Candidates []Candidate `json:"candidates,omitempty"` // all links found, best first
	Facts      []Fact      `json:"facts,omitempty"`      // LFS pointers, skipped files, symlinks not created
}

// Candidate is one code link with who stated it.
type Candidate struct {
	URL      string `json:"url"`
	StatedBy string `json:"stated_by"` // user|author|author_page|hub_curated|hub_claimed|aggregator|mirror
	Rank     int    `json:"rank"`      // 1 is best
	Chosen   bool   `json:"chosen,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Note     string `json:"note,omitempty"` // what whoever stated it says of it, shown first in every report
	// Simulated says that the code simulates the system the paper measured;
	// every number it gives is marked so in the results.
	Simulated bool       `json:"simulated,omitempty"`
	Evidence  []Evidence `json:"evidence,omitempty"`
}

// Fact is one statement with its origin.
type Fact struct {
	Name     string     `json:"name"`
	Value    string     `json:"value"`
	Kind     Kind       `json:"kind"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Paper describes the paper whose claim is checked.
type Paper struct {
	ID         string     `json:"id"`      // without version
	Version    string     `json:"version"` // concrete, "v1"
	Title      string     `json:"title"`
	Authors    []string   `json:"authors,omitempty"`
	Abstract   string     `json:"abstract,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	Categories []string   `json:"categories,omitempty"`
	Published  *time.Time `json:"published,omitempty"`
	Updated    *time.Time `json:"updated,omitempty"`
	URL        string     `json:"url"`
	Evidence   []Evidence `json:"evidence,omitempty"`
}

// Model describes a hub model that is the target itself.
type Model struct {
	ID       string   `json:"id"`
	Revision string   `json:"revision"` // 40 hex digits where known; of a folder, whose path is the ID, the SHA-256 of what it holds
	Task     string   `json:"task,omitempty"`
	Licence  string   `json:"licence,omitempty"`
	Base     []string `json:"base,omitempty"`
	Gated    bool     `json:"gated,omitempty"`
	Facts    []Fact   `json:"facts,omitempty"` // architecture, layers, formats
}

// Environment is what has to be installed before anything runs.
type Environment struct {
	Manager           string            `json:"manager"` // none|pip|uv|poetry|pdm|conda|pipenv|unknown
	Python            VersionFact       `json:"python"`
	CUDA              VersionFact       `json:"cuda"`
	Framework         FrameworkFact     `json:"framework"`
	DependencySources []DependencyFile  `json:"dependency_sources,omitempty"`
	Requirements      []Requirement     `json:"requirements,omitempty"` // what prepare installs, in order
	Indexes           []Index           `json:"indexes,omitempty"`      // where else the repository says to look for packages
	SystemPackages    []string          `json:"system_packages,omitempty"`
	NeedsCompile      bool              `json:"needs_compile,omitempty"`
	SKUs              map[string]SKUFit `json:"skus,omitempty"` // keyed by the ids of estimators/sku
	SKU               string            `json:"sku,omitempty"`  // the one of SKUs whose deviations are applied when the environment is made
	ExcludeNewer      *time.Time        `json:"exclude_newer,omitempty"`
}

// VersionFact is a version with where it is stated. Version is empty when
// nobody states one.
type VersionFact struct {
	Version  string     `json:"version,omitempty"`
	Kind     Kind       `json:"kind,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// FrameworkFact is the main numerical framework.
type FrameworkFact struct {
	Name string `json:"name,omitempty"` // pytorch|tensorflow|jax|…
	VersionFact
}

// DependencyFile is one file that declares dependencies.
type DependencyFile struct {
	Path   string `json:"path"`
	Role   string `json:"role"`   // primary|also|ignored
	Pinned string `json:"pinned"` // full|partial|none
	Reason string `json:"reason"`
}

// Requirement is one line for the package installer.
type Requirement struct {
	Spec     string     `json:"spec"` // PEP 508, or a path below the checkout such as "-r requirements.txt" or "-e ."
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Index is a place with packages that the repository names beside the package
// index of the site.
type Index struct {
	URL      string     `json:"url"`
	Kind     string     `json:"kind"` // index|find_links|channel
	Evidence []Evidence `json:"evidence,omitempty"`
}

// SKUFit says whether the environment can work on a GPU model.
type SKUFit struct {
	Status     string      `json:"status"` // ok|other_cuda_build|needs_bump|cpu_ok|unknown
	BaseImage  string      `json:"base_image,omitempty"`
	Deviations []Deviation `json:"deviations,omitempty"`
}

// Deviation is a difference between what was declared and what was used.
type Deviation struct {
	What     string `json:"what"`
	Declared string `json:"declared"`
	Used     string `json:"used"`
	Reason   string `json:"reason"`
}

// Decision records a choice, what lost, and why.
type Decision struct {
	What    string   `json:"what"`
	Chosen  string   `json:"chosen"`
	Over    []string `json:"over,omitempty"`
	Because string   `json:"because"`
}

// Warning is something the reader should know. Warnings are data, not errors.
type Warning struct {
	Code     string     `json:"code"` // snake_case, stable
	Message  string     `json:"message"`
	Evidence []Evidence `json:"evidence,omitempty"`
}
