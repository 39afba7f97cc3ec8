package syntax

// test makes a primitive of qualifiers and a value, if they go together.
func (p *parser) test(q Qual, v Value, at int) (Node, error) {
	if e := p.fits(q, v, at); e != nil {
		return nil, e
	}
	if q.Kind != KindAlone {
		p.last = &q
	}
	return Primitive{Qual: q, Value: v, Env: p.env}, nil
}

// fits says what is wrong with a combination of qualifiers and value.
func (p *parser) fits(q Qual, v Value, at int) *Error {
	switch q.Kind {
	case KindAlone:
		if q.Proto == ProtoEther {
			return p.errorf(at, "every frame is Ethernet").hint("write `ether host …` or `ether proto …`")
		}
	case KindPort, KindRange:
		switch q.Proto {
		case ProtoAny, ProtoTCP, ProtoUDP, ProtoSCTP:
		default:
			return p.errorf(at, "only tcp, udp and sctp have ports")
		}
	case KindProto:
		switch q.Proto {
		case ProtoAny, ProtoIP, ProtoIP6, ProtoEther:
		default:
			return p.errorf(at, "proto goes with ip, ip6 or ether")
		}
		if q.Dir != DirAny {
			return p.errorf(at, "a protocol has no source or destination")
		}
		if most := uint32(255); q.Proto != ProtoEther && v.Num > most {
			return p.errorf(at, "protocol %d: the largest is %d", v.Num, most)
		} else if v.Num > 65535 {
			return p.errorf(at, "EtherType %d: the largest is 65535", v.Num)
		}
	case KindBroadcast, KindMulticast:
		return p.groupFits(q, at)
	default:
		return p.addressFits(q, v, at)
	}
	return nil
}

func (p *parser) groupFits(q Qual, at int) *Error {
	switch {
	case q.Proto == ProtoAny || q.Proto == ProtoEther:
	case q.Kind == KindBroadcast:
		return p.errorf(at, "the broadcast address of an IP network is not known here").hint("write `ether broadcast`, or `dst host` with the address")
	case q.Proto != ProtoIP && q.Proto != ProtoIP6:
		return p.errorf(at, "multicast goes with ether, ip or ip6")
	}
	return nil
}

func (p *parser) addressFits(q Qual, v Value, at int) *Error {
	isMAC, is6 := v.Ether, v.Net.IsValid()
	switch q.Proto {
	case ProtoAny:
		if isMAC {
			return p.errorf(at, "a MAC address").hint("write `ether host`, `ether src` or `ether dst`")
		}
	case ProtoEther:
		if !isMAC {
			return p.errorf(at, "no MAC address").hint("an IP address takes `host`, without ether")
		}
	case ProtoIP, ProtoARP, ProtoRARP:
		if isMAC || is6 {
			return p.errorf(at, "ip, arp and rarp go with an IPv4 address")
		}
	case ProtoIP6:
		if isMAC || !is6 {
			return p.errorf(at, "ip6 goes with an IPv6 address")
		}
	default:
		return p.errorf(at, "an address belongs to ip, ip6, arp or ether").hint("write `… and host …`, or give `port` a number")
	}
	return nil
}
