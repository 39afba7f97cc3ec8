package filter

// test makes a primitive of qualifiers and a value, if they go together.
func (p *parser) test(q qual, v value, at int) (node, error) {
	if e := p.fits(q, v, at); e != nil {
		return nil, e
	}
	if q.kind != kindAlone {
		p.last = &q
	}
	return primitive{qual: q, value: v, env: p.env}, nil
}

// fits says what is wrong with a combination of qualifiers and value.
func (p *parser) fits(q qual, v value, at int) *Error {
	switch q.kind {
	case kindAlone:
		if q.proto == protoEther {
			return p.errorf(at, "every frame is Ethernet").hint("write `ether host …` or `ether proto …`")
		}
	case kindPort, kindRange:
		switch q.proto {
		case protoAny, protoTCP, protoUDP, protoSCTP:
		default:
			return p.errorf(at, "only tcp, udp and sctp have ports")
		}
	case kindProto:
		switch q.proto {
		case protoAny, protoIP, protoIP6, protoEther:
		default:
			return p.errorf(at, "proto goes with ip, ip6 or ether")
		}
		if q.dir != dirAny {
			return p.errorf(at, "a protocol has no source or destination")
		}
		if most := uint32(255); q.proto != protoEther && v.num > most {
			return p.errorf(at, "protocol %d: the largest is %d", v.num, most)
		} else if v.num > 65535 {
			return p.errorf(at, "EtherType %d: the largest is 65535", v.num)
		}
	case kindBroadcast, kindMulticast:
		return p.groupFits(q, at)
	default:
		return p.addressFits(q, v, at)
	}
	return nil
}

func (p *parser) groupFits(q qual, at int) *Error {
	switch {
	case q.proto == protoAny || q.proto == protoEther:
	case q.kind == kindBroadcast:
		return p.errorf(at, "the broadcast address of an IP network is not known here").hint("write `ether broadcast`, or `dst host` with the address")
	case q.proto != protoIP && q.proto != protoIP6:
		return p.errorf(at, "multicast goes with ether, ip or ip6")
	}
	return nil
}

func (p *parser) addressFits(q qual, v value, at int) *Error {
	isMAC, is6 := v.ether, v.net.IsValid()
	switch q.proto {
	case protoAny:
		if isMAC {
			return p.errorf(at, "a MAC address").hint("write `ether host`, `ether src` or `ether dst`")
		}
	case protoEther:
		if !isMAC {
			return p.errorf(at, "no MAC address").hint("an IP address takes `host`, without ether")
		}
	case protoIP, protoARP, protoRARP:
		if isMAC || is6 {
			return p.errorf(at, "ip, arp and rarp go with an IPv4 address")
		}
	case protoIP6:
		if isMAC || !is6 {
			return p.errorf(at, "ip6 goes with an IPv6 address")
		}
	default:
		return p.errorf(at, "an address belongs to ip, ip6, arp or ether").hint("write `… and host …`, or give `port` a number")
	}
	return nil
}
