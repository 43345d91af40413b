package model

// Part is the role that a module plays.
type Part string

// The parts of a model.
const (
	Embedding    Part = "embedding"
	Head         Part = "head"
	Attention    Part = "attention"
	LinearAttn   Part = "linear_attention" // gated delta networks
	Mamba        Part = "mamba"
	MLP          Part = "mlp"
	Expert       Part = "expert"
	SharedExpert Part = "shared_expert"
	Router       Part = "router"
	Norm         Part = "norm"
	Vision       Part = "vision"
	MTP          Part = "mtp" // layers that only propose further tokens
)

// Module is one weight with what belongs to it, or several of the same shape:
// the experts of a layer are one module with a star in its name.
type Module struct {
	Name   string `json:"name"` // as in the checkpoint, without ".weight"
	Part   Part   `json:"part"`
	Layer  int    `json:"layer"`            // -1 outside of the layers
	Out    int    `json:"out"`              // rows of the weight
	In     int    `json:"in"`               // columns of the weight; 1 for a vector
	Bias   int    `json:"bias,omitempty"`   // further parameters beside the weight
	Copies int    `json:"copies,omitempty"` // experts; 0 means 1
	Active int    `json:"active,omitempty"` // copies that one token uses; 0 means all
	// Linear modules are those that a rule for all linear modules replaces.
	// Routers are products too, and are left alone unless they are named.
	Linear bool `json:"linear,omitempty"`
}

func (m *Module) copies() int64 { return int64(max(1, m.Copies)) }

func (m *Module) active() int64 {
	if m.Active == 0 {
		return m.copies()
	}
	return int64(m.Active)
}

// one is the number of parameters of one copy.
func (m *Module) one() int64 { return int64(m.Out)*int64(m.In) + int64(m.Bias) }

// Params is the number of parameters.
func (m *Module) Params() int64 { return m.copies() * m.one() }

// Params counts parameters, whatever they are packed into.
type Params struct {
	Total  int64 `json:"total"`            // text and vision, without MTP
	Text   int64 `json:"text"`             // with embedding and head
	Vision int64 `json:"vision,omitempty"` // towers and projectors
	MTP    int64 `json:"mtp,omitempty"`    // with the copies of embedding and head that some checkpoints carry
	Input  int64 `json:"input"`            // the input embedding, of Text; tied to the head where there is no head
	Expert int64 `json:"expert,omitempty"` // routed experts, of Text
	// Active is what one token of text uses, both embeddings counted whole, as
	// names such as A22B count it.
	Active int64 `json:"active"`
	// Compute is Active without the input embedding, which is a look-up: what a
	// token multiplies with.
	Compute int64 `json:"compute"`
}

func countParams(modules []Module) Params {
	var p Params
	hasHead := false
	for i := range modules {
		m := &modules[i]
		n := m.Params()
		switch m.Part {
		case Vision:
			p.Vision += n
			continue
		case MTP:
			p.MTP += n
			continue
		case Embedding:
			p.Input += n
		case Head:
			hasHead = true
		case Expert:
			p.Expert += n
		}
		p.Text += n
		p.Active += m.active() * m.one()
	}
	p.Total = p.Text + p.Vision
	p.Compute = p.Active
	if hasHead {
		p.Compute -= p.Input
	}
	return p
}
