"""HTML as a tree of elements, read by the standard library; wrong nesting fails."""

from __future__ import annotations

from html.parser import HTMLParser

EMPTY = {"meta", "link", "img", "br"}  # elements without an end


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children, self.pieces = [], []

    def __getitem__(self, attribute):
        return self.attributes[attribute]

    @property
    def text(self):
        """All text in it, in order."""
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)

    def all(self, tag=None, *, of=None):
        """The elements below it with this tag and class."""
        for child in self.children:
            classes = (child.attributes.get("class") or "").split()
            if tag in (None, child.tag) and (of is None or of in classes):
                yield child
            yield from child.all(tag, of=of)

    def one(self, tag=None, *, of=None):
        (found,) = self.all(tag, of=of)
        return found


class Tree(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(text)
        self.close()
        assert self.at is self.root, f"{self.at.tag} is never closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        new = Element(tag, dict(attrs), self.at)
        self.at.children.append(new)
        self.at.pieces.append(new)
        if tag not in EMPTY:
            self.at = new

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"{tag} closes {self.at.tag}"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.pieces.append(data)
