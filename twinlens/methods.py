"""How a call that is declared once becomes a method of `Client` and of `AsyncClient`.

    class Calls:
        @call
        def get_product(self, product_id: str) -> Request[Product]: ...

`Client().get_product` then returns a Product, `AsyncClient().get_product` an awaitable one, and type checkers know
both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, overload

from twinlens.request import Item, Page, Request, Result

if TYPE_CHECKING:
    from twinlens.async_client import AsyncClient
    from twinlens.client import Client

Given = ParamSpec("Given")


class call(Generic[Given, Result]):  # noqa: N801  # a decorator
    """A call with one answer. What is decorated makes the request from the arguments."""

    def __init__(self, build: Callable[Concatenate[Any, Given], Request[Result]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, Given], Request[Result]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Given, Result]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[Given, Coroutine[Any, Any, Result]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self._build if client is None else client.method(MethodType(self._build, client))


class listing(Generic[Given, Item]):  # noqa: N801
    """A call whose answers are pages: the method gives what is on them, and asks for each page when it is needed."""

    def __init__(self, build: Callable[Concatenate[Any, Given], Request[Page[Item]]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Any, Given], Request[Page[Item]]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Given, Iterator[Item]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[Given, AsyncIterator[Item]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self._build if client is None else client.listing_method(MethodType(self._build, client))
