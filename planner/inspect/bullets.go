package inspect

import (
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/spec"
)

// called are packages as prose calls them, squashed, with their distribution.
var called = map[string]string{
	"pytorch": "torch", "torch": "torch", "torchvision": "torchvision", "torchaudio": "torchaudio", "torchtext": "torchtext", "tensorflow": "tensorflow", "tensorflowgpu": "tensorflow-gpu",
	"tensorflowprobability": "tensorflow-probability", "tensorflowdatasets": "tensorflow-datasets", "tensorflowaddons": "tensorflow-addons", "tensorboard": "tensorboard", "tensorboardx": "tensorboardx",
	"keras": "keras", "jax": "jax", "jaxlib": "jaxlib", "flax": "flax", "haiku": "dm-haiku", "optax": "optax", "chainer": "chainer", "theano": "theano", "mxnet": "mxnet",
	"numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "matplotlib": "matplotlib", "seaborn": "seaborn", "sklearn": "scikit-learn", "scikitlearn": "scikit-learn",
	"scikitimage": "scikit-image", "skimage": "scikit-image", "opencv": "opencv-python", "opencvpython": "opencv-python", "cv2": "opencv-python", "pillow": "pillow", "pil": "pillow",
	"imageio": "imageio", "tqdm": "tqdm", "h5py": "h5py", "pyyaml": "pyyaml", "yaml": "pyyaml", "yacs": "yacs", "easydict": "easydict", "six": "six", "numba": "numba", "cython": "cython",
	"transformers": "transformers", "huggingfacetransformers": "transformers", "pytorchtransformers": "pytorch-transformers", "pytorchpretrainedbert": "pytorch-pretrained-bert", "datasets": "datasets",
	"tokenizers": "tokenizers", "sentencepiece": "sentencepiece", "accelerate": "accelerate", "peft": "peft", "diffusers": "diffusers", "deepspeed": "deepspeed", "bitsandbytes": "bitsandbytes",
	"flashattn": "flash-attn", "xformers": "xformers", "triton": "triton", "apex": "apex", "timm": "timm", "einops": "einops", "lightning": "lightning", "pytorchlightning": "pytorch-lightning",
	"hydra": "hydra-core", "hydracore": "hydra-core", "omegaconf": "omegaconf", "wandb": "wandb", "nltk": "nltk", "spacy": "spacy", "gensim": "gensim", "fairseq": "fairseq", "allennlp": "allennlp", "sacrebleu": "sacrebleu",
	"gym": "gym", "openaigym": "gym", "gymnasium": "gymnasium", "mujocopy": "mujoco-py", "mujoco": "mujoco", "d4rl": "d4rl", "ataripy": "atari-py", "stablebaselines3": "stable-baselines3", "dmcontrol": "dm-control",
	"networkx": "networkx", "torchgeometric": "torch-geometric", "pytorchgeometric": "torch-geometric", "pyg": "torch-geometric", "torchscatter": "torch-scatter", "torchsparse": "torch-sparse", "dgl": "dgl",
	"ogb": "ogb", "rdkit": "rdkit", "faiss": "faiss-cpu", "faissgpu": "faiss-gpu", "faisscpu": "faiss-cpu", "librosa": "librosa", "soundfile": "soundfile", "pycocotools": "pycocotools", "lmdb": "lmdb",
	"lpips": "lpips", "kornia": "kornia", "albumentations": "albumentations", "torchdiffeq": "torchdiffeq", "autograd": "autograd", "botorch": "botorch", "gpytorch": "gpytorch", "pyro": "pyro-ppl",
	"xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost", "ray": "ray", "absl": "absl-py", "abslpy": "absl-py", "mlcollections": "ml-collections", "regex": "regex", "requests": "requests",
	"jupyter": "jupyter", "tensor2tensor": "tensor2tensor", "fire": "fire", "termcolor": "termcolor", "joblib": "joblib", "psutil": "psutil", "pytest": "pytest", "torchmetrics": "torchmetrics",
}

var (
	needHeadingRE = regexp.MustCompile(`(?i)^\W*(?:[\d.]+\s*)?(?:\w+ )?(?:requirements?|dependenc(?:y|ies)|prerequisites?|pre-requisites?|required packages|environments?|installation|install|set-?up)\b`)
	needIntroRE   = regexp.MustCompile(`(?i)\b(?:requirements?|dependencies|prerequisites|require[sd]?|depends on|needs?|following (?:python )?(?:packages|libraries)|tested (?:with|on)|packages)\b[^.]*:?$`)
	// itemRE reads "Name", "Name 1.2", "Name >= 1.2", "Name (1.2)", "Name: tested
	// on v1.2+cu111".
	itemRE   = regexp.MustCompile(`(?i)^([A-Za-z][\w.\-]*(?: [A-Za-z][\w\-]*)?)\s*(?:[:,(]\s*)?(?:(?:tested (?:on|with)|version|ver\.?)\s*)?(==|>=|<=|~=|>|<|=|≥)?\s*v?\.?(\d+(?:\.\d+)+(?:\+cu\d+|\+)?|\d+\+)?`)
	bulletRE = regexp.MustCompile(`^(?:[-*+•]|\d{1,2}[.)])\s+`)
	splitRE  = regexp.MustCompile(`\s*(?:,|;|&|\band\b)\s+`)
)

// bullets reads the items of lists that name packages under a heading such as
// "Requirements", or after a sentence that says so. An item counts when its
// first words are a package as prose calls it; its version is the one right
// after the name.
func (d *Dependency) bullets(doc *Document) {
	intro := ""
	for i := range doc.Doc.Paras {
		p := &doc.Doc.Paras[i]
		mark := bulletRE.FindString(p.Text)
		if mark == "" {
			intro = p.Text
			continue
		}
		h, _ := doc.Doc.Section(p.Line)
		if len(p.Text) > 400 || !needHeadingRE.MatchString(h.Text) && !(needIntroRE.MatchString(intro) && depHeadingRE.MatchString(h.Text)) {
			continue
		}
		text := markdown.Plain(p.Text[len(mark):])
		for _, item := range splitRE.Split(text, 12) {
			e, ok := listed(item)
			if !ok {
				break // what follows is a sentence
			}
			e.Line, e.Quote = p.Line, clip(p.Text)
			if e.Name == "python" {
				if v := e.VersionOf(); v != "" && d.Python.Spec == "" {
					d.Python = Version{Spec: strings.TrimPrefix(v, "=="), Kind: spec.Published, At: e.Evidence(doc.Path)}
				}
				continue
			}
			d.Entries = append(d.Entries, e)
		}
	}
}

// listed reads one item of a list of packages.
func listed(item string) (Entry, bool) {
	m := itemRE.FindStringSubmatch(strings.TrimSpace(item))
	if m == nil {
		return Entry{}, false
	}
	name := called[squashName(m[1])]
	if name == "" {
		first, rest, two := strings.Cut(m[1], " ")
		if name = called[squashName(first)]; name == "" && !strings.EqualFold(first, "python") {
			return Entry{}, false
		}
		if strings.EqualFold(first, "python") {
			name = "python"
		}
		// "PyTorch version 1.7": the words between are no part of the name
		if two && !versionWord[strings.ToLower(rest)] {
			return Entry{Spec: name, Name: name}, strings.HasPrefix(strings.TrimSpace(item[len(first):]), "(")
		}
	}
	version, op := m[3], m[2]
	switch {
	case version == "":
		return Entry{Spec: name, Name: name}, true
	case strings.HasSuffix(version, "+") || op == "≥":
		op, version = ">=", strings.TrimSuffix(version, "+")
	case op == "" || op == "=":
		op = "=="
	}
	e := ParseRequirement(name + op + version)
	return e, true
}

var versionWord = map[string]bool{"version": true, "tested": true, "ver": true, "v": true, "library": true, "package": true}

func squashName(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "", ".", "").Replace(strings.ToLower(s))
}

var (
	condaBodyRE = regexp.MustCompile(`(?m)^dependencies:\s*(?:#.*)?$`)
	condaItemRE = regexp.MustCompile(`(?m)^\s*-\s+(?:[\w\-]+::)?(?:python|pip|pytorch|numpy|cudatoolkit)\b`)
)

// maxSniffed bounds how many YAML files are read to see whether they are
// environments of conda under another name.
const maxSniffed = 150

// odd reads YAML files that are environments of conda by what they hold,
// whatever their name.
func (r *reader) odd() error {
	paths := r.byDepth(maxSniffed, func(p, base, ext string) bool {
		return (ext == ".yml" || ext == ".yaml") && kindOf(p, base) == "" && depth(p) <= 3 && r.facts.Size(p) < 256<<10 && !strings.HasPrefix(p, ".github/")
	})
	for _, p := range paths {
		src, ok, err := r.text(p)
		if err != nil {
			return err
		}
		if ok && condaBodyRE.MatchString(src) && condaItemRE.MatchString(src) {
			if d := parseConda(p, src); d != nil {
				r.facts.Dependencies = append(r.facts.Dependencies, *d)
			}
		}
	}
	return nil
}
